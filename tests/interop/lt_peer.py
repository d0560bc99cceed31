"""libtorrent as a seeder or leecher: one torrent, TCP only, run by the Python that has its wheel.

`download` exits 0 when the torrent is whole, 3 when `--limit` seconds were not enough; `seed` runs until SIGINT. Its
last line is `uploaded N`, in bytes of payload.
"""
import argparse
import signal
import sys
import time

import libtorrent as lt

sys.dont_write_bytecode = True
import lt_dht       # noqa: E402

DHT_SECONDS, DHT_NODES = 20, 3

ap = argparse.ArgumentParser()
ap.add_argument("verb", choices=("seed", "download"))
ap.add_argument("torrent")
ap.add_argument("--dir", required=True)
ap.add_argument("--ip", required=True)
ap.add_argument("--port", required=True)
ap.add_argument("--trust", action="store_true", help="seed without looking at the files")
ap.add_argument("--peer", help="IP:PORT to connect to")
ap.add_argument("--up", type=int, default=0, help="bytes of payload per second to upload at most")
ap.add_argument("--down", type=int, default=0, help="the same to download")
ap.add_argument("--dht", help="IP:PORT of the node of the DHT to begin with")
ap.add_argument("--lsd", action="store_true", help="look for peers on the local network")
ap.add_argument("--limit", type=float, default=600)
args = ap.parse_args()

stopping = []
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda *_: stopping.append(1))

host = f"[{args.ip}]" if ":" in args.ip else args.ip
parameters = lt.session_params()
parameters.settings = {
    "listen_interfaces": f"{host}:{args.port}",
    "outgoing_interfaces": args.ip,
    "enable_dht": False, "enable_lsd": args.lsd, "enable_upnp": False, "enable_natpmp": False,
    "enable_outgoing_utp": False, "enable_incoming_utp": False,
    "out_enc_policy": 2, "in_enc_policy": 2,          # plain text only
    "allow_multiple_connections_per_ip": True,
    "alert_mask": int(lt.alert.category_t.error_notification | lt.alert.category_t.status_notification
                      | lt.alert.category_t.tracker_notification | lt.alert.category_t.connect_notification),
    **(lt_dht.settings(args.dht) if args.dht else {}),
}
session = lt.session(parameters)
# What is added before there are nodes is announced a quarter of an hour later.
joined = time.monotonic() + DHT_SECONDS
while args.dht and not stopping and time.monotonic() < joined and session.status().dht_nodes < DHT_NODES:
    time.sleep(0.1)
if args.torrent.startswith("magnet:"):
    torrent = lt.parse_magnet_uri(args.torrent)
else:
    torrent = lt.add_torrent_params()
    torrent.ti = lt.torrent_info(args.torrent)
torrent.save_path = args.dir
flags = lt.torrent_flags.default_flags & ~lt.torrent_flags.auto_managed & ~lt.torrent_flags.paused
torrent.flags = flags | lt.torrent_flags.seed_mode if args.trust else flags
handle = session.add_torrent(torrent)
# Of the torrent: the session's own limit leaves local peers out.
handle.set_upload_limit(args.up)
handle.set_download_limit(args.down)
if args.peer:
    ip, _, port = args.peer.rpartition(":")
    handle.connect_peer((ip, int(port)))

deadline = time.monotonic() + args.limit
status = 0 if args.verb == "seed" else 3
finished = False
while not stopping and not finished and time.monotonic() < deadline:
    session.wait_for_alert(200)
    for alert in session.pop_alerts():
        print(f"{time.monotonic():.2f} {alert.what()}: {alert.message()}", flush=True)
        if args.verb == "download" and isinstance(alert, lt.torrent_finished_alert):
            finished, status = True, 0
if finished:
    # What is "finished" may still be in libtorrent's own write queue.
    handle.flush_cache()
    flushed = False
    while not flushed and time.monotonic() < deadline:
        session.wait_for_alert(200)
        flushed = any(isinstance(alert, lt.cache_flushed_alert) for alert in session.pop_alerts())
print(f"uploaded {handle.status().total_payload_upload}", flush=True)
sys.exit(status)
