"""How libtorrent's DHT is set up where all nodes are at a few private addresses."""
import libtorrent as lt


def settings(first):
    """Begins with the node at `first`, IP:PORT, and with no other."""
    return {
        "enable_dht": True, "dht_bootstrap_nodes": first,
        # Its defences count addresses and networks, of which there is one here.
        "dht_restrict_routing_ips": False, "dht_restrict_search_ips": False, "dht_prefer_verified_node_ids": False,
        "dht_enforce_node_id": False, "dht_ignore_dark_internet": False, "dht_max_peers_reply": 100,
        "dht_block_ratelimit": 1000,
    }


def session_of(ip, port, first):
    """A session that is nothing but a node."""
    parameters = lt.session_params()
    parameters.settings = {
        "listen_interfaces": f"{ip}:{port}", "outgoing_interfaces": ip, "enable_lsd": False, "enable_upnp": False,
        "enable_natpmp": False, **settings(first),
    }
    return lt.session(parameters)
