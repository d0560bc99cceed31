"""Items of the DHT (BEP 44), put and fetched by libtorrent; run by the Python that has its wheel.

For each line of its input, a JSON array, it prints one JSON object; all but salts and texts in hexadecimal digits:

    ["put", TEXT]   ["get", HASH]   ["put-signed", SEED, KEY, SALT, TEXT]   ["get-signed", KEY, SALT]
"""
import argparse
import hashlib
import json
import sys
import time

sys.dont_write_bytecode = True
import libtorrent as lt           # noqa: E402
from lt_dht import session_of     # noqa: E402

SECONDS = 30


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--ip", required=True)
    ap.add_argument("--port", type=int, required=True)
    ap.add_argument("--first", required=True)
    args = ap.parse_args()
    session = session_of(args.ip, args.port, args.first)
    session.apply_settings({"alert_mask": lt.alert.category_t.dht_notification | lt.alert.category_t.dht_operation_notification})
    # What is asked before anybody is known comes to nothing.
    wait(lambda: session.status().dht_nodes >= 4, "nodes")
    for line in sys.stdin:
        verb, *words = json.loads(line)
        print(json.dumps(VERBS[verb](session, *words)), flush=True)


def put(session, text):
    target = session.dht_put_immutable_item(text.encode())
    alert = next_alert(session, lt.dht_put_alert)
    return {"hash": str(target), "stored": alert.num_success}


def get(session, target):
    session.dht_get_immutable_item(lt.sha1_hash(bytes.fromhex(target)))
    alert = next_alert(session, lt.dht_immutable_item_alert)
    return {"value": text_of(alert.item)}


def put_signed(session, seed, key, salt, text):
    session.dht_put_mutable_item(expanded(bytes.fromhex(seed)), bytes.fromhex(key), text.encode(), salt.encode())
    alert = next_alert(session, lt.dht_put_alert)
    return {"stored": alert.num_success, "seq": alert.seq}


def get_signed(session, key, salt):
    session.dht_get_mutable_item(bytes.fromhex(key), salt.encode())
    # It tells of each better version, and at the end of the best.
    alert = next_alert(session, lt.dht_mutable_item_alert, lambda alert: alert.authoritative)
    return {"value": text_of(alert.item), "seq": alert.seq}


VERBS = {"put": put, "get": get, "put-signed": put_signed, "get-signed": get_signed}


def expanded(seed):
    """The secret key as libtorrent takes it: the hash of its seed, with the bits set that RFC 8032 sets."""
    digest = bytearray(hashlib.sha512(seed).digest())
    digest[0] &= 248
    digest[31] = digest[31] & 63 | 64
    return bytes(digest)


def text_of(item):
    if isinstance(item, dict):      # as some versions of the wheel show it
        item = item.get("value", item.get("v"))
    return item.decode() if isinstance(item, bytes) else item


def next_alert(session, kind, fits=lambda alert: True):
    def look():
        return next((alert for alert in session.pop_alerts() if isinstance(alert, kind) and fits(alert)), None)

    return wait(look, kind.__name__)


def wait(look, what):
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        if found := look():
            return found
        time.sleep(0.05)
    sys.exit(f"libtorrent: no {what} within {SECONDS} s")


if __name__ == "__main__":
    main()
