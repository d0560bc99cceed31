//! Every number that bounds what comes from outside, with the BEP or the reason.

use std::time::Duration;

/// What we ask for at once, and the most we accept in a `piece` message (BEP 3: "all current implementations use 16 KiB").
pub const BLOCK_BYTES: u32 = 1 << 14;
/// The longest block another client may ask of us; more is nonsense (`reliability.md` B4).
pub const REQUEST_BYTES_MAX: u32 = 128 << 10;
/// Pieces a torrent may have; the same as libtorrent's.
pub const PIECES_MAX: u32 = 1 << 21;
/// The largest piece length in version 1.
pub const PIECE_LENGTH_MAX: u32 = 1 << 29;
/// The largest torrent: file offsets stay below 2^48.
pub const TOTAL_BYTES_MAX: u64 = 1 << 48;
/// The largest torrent file read.
pub const TORRENT_FILE_BYTES_MAX: usize = 32 << 20;
/// Directories in a path of a torrent, its name and the file included; libtorrent 2.1 has the same limit.
pub const PATH_COMPONENTS_MAX: usize = 100;
/// A name on disk: what Linux and Windows file systems take.
pub const PATH_COMPONENT_BYTES_MAX: usize = 255;
/// A path below the download directory; Linux takes 4,096 bytes with the directory.
pub const PATH_BYTES_MAX: usize = 3072;
/// Nested lists and dictionaries in bencode from outside.
pub const BENCODE_DEPTH_MAX: usize = 100;
/// Values in one piece of bencode from outside.
pub const BENCODE_TOKENS_MAX: usize = 3_000_000;
/// An extended message (BEP 10), or one of a kind that we do not know; metadata pieces are 16 KiB, PEX a few.
pub const EXTENDED_BYTES_MAX: u32 = 1 << 16;
/// The largest info dictionary that is fetched from peers (BEP 9); 15 MB ones exist (`reliability.md` B1).
pub const METADATA_BYTES_MAX: u32 = TORRENT_FILE_BYTES_MAX as u32 - 1024;
/// Received of metadata and not yet right, over one torrent: two of the largest.
pub const METADATA_BUFFERED_MAX: u64 = 2 * METADATA_BYTES_MAX as u64;
/// Blocks of wrong metadata whose digests are remembered, over one torrent.
pub const METADATA_EVIDENCE_MAX: usize = 4096;
/// A peer's requests for metadata that wait; Transmission keeps as many.
pub const METADATA_REQUESTS_MAX: usize = 64;
/// How often one connection may have all of our metadata.
pub const METADATA_TIMES_SERVED: u32 = 3;
/// Pieces that a peer names one by one before we know how many there are; more, and it is dropped, to say it in a
/// bitfield when it is back.
pub const EARLY_PIECES_MAX: usize = 1 << 16;
/// The largest bitfield any torrent can have.
pub const BITFIELD_BYTES_MAX: u32 = PIECES_MAX / 8;
/// Requests we keep at one peer at most.
pub const REQUESTS_OUT_MAX: u32 = 500;
/// Requests of one peer that we queue; said in `reqq` (BEP 10).
pub const REQUESTS_QUEUED_MAX: u32 = 500;
/// Peers of one torrent that are served at once, however fast we are.
pub const UPLOAD_SLOTS_MAX: u32 = 32;
/// Read for one peer and not yet on its socket.
pub const UPLOAD_BYTES_MAX: u64 = 64 * BLOCK_BYTES as u64;
/// What a connection without a limit may have read and not yet handed over: two of the largest reads.
pub const READ_WINDOW_BYTES: u64 = 1 << 20;
/// The same where there are many: four blocks.
pub const READ_WINDOW_BYTES_MIN: u64 = 4 * BLOCK_BYTES as u64;
/// What all connections share of it while each has that much. Memory passes its budget by no more than the windows; what was
/// granted while there were fewer connections is used up first.
pub const READ_WINDOWS_BYTES: u64 = 16 << 20;
/// What a peer that does not say `reqq` is taken to queue.
pub const REQQ_DEFAULT: u32 = 250;
/// Blocks of failed pieces whose digests are remembered, over one torrent: those of the four largest pieces there are.
pub const EVIDENCE_BLOCKS_MAX: usize = 4 * (PIECE_LENGTH_MAX / BLOCK_BYTES) as usize;
/// Addresses known per torrent.
pub const CANDIDATES_MAX: usize = 2000;
/// Of those, named first by one tracker, or by one kind of other source.
pub const CANDIDATES_PER_ORIGIN_MAX: usize = CANDIDATES_MAX / 2;
/// Of those, named first by one host in peer exchange.
pub const CANDIDATES_PER_PEX_SOURCE_MAX: usize = 100;
/// Dials of an address that only peer exchange has named, before it is forgotten (`reliability.md` G11).
pub const PEX_DIALS_MAX: u32 = 2;
/// Peers added, and peers dropped, in one message of peer exchange (BEP 11).
pub const PEX_PEERS_MAX: usize = 50;
/// Peers believed of the first one, which says all that the sender knows.
pub const PEX_FIRST_MAX: usize = 100;
/// Entries of one list of it that are read at all.
pub const PEX_PEERS_READ_MAX: usize = 200;
/// Trackers of one torrent that are looked at.
pub const TRACKERS_MAX: usize = 256;
/// Web seeds of one torrent that are looked at.
pub const WEB_SEEDS_MAX: usize = 256;
/// DHT nodes of one torrent file that are looked at.
pub const DHT_NODES_MAX: usize = 256;
/// Peers taken from one announce answer.
pub const TRACKER_PEERS_MAX: usize = 1000;
/// The body of a tracker's answer.
pub const TRACKER_BODY_BYTES_MAX: u32 = 1 << 20;
/// Redirects followed for one HTTP request.
pub const REDIRECTS_MAX: u32 = 5;
/// Without a byte from an HTTP server for this long, its answer has failed; libtorrent's.
pub const HTTP_RECEIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// A look-up, or an HTTP request from the dial to the last byte.
pub const HTTP_TIMEOUT: Duration = Duration::from_secs(30);
/// From dialling to a connection.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// From a connection to the other side's handshake.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Without a byte from a peer for this long, it is gone (BEP 3 suggests two minutes).
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(120);
/// Without a byte to a peer for this long, a keep-alive goes out.
pub const KEEP_ALIVE: Duration = Duration::from_secs(60);
/// Disk jobs under way at once over all torrents; the driver's channel for results is as long.
pub const JOBS_MAX: usize = 256;
/// Connections accepted that have not named a torrent yet.
pub const STRANGERS_MAX: usize = 100;
/// Of those, from one public address range: a few behind one address translation, no crowd.
pub const STRANGERS_PER_RANGE_MAX: usize = 20;
/// Connections of one torrent with one public address: a few behind one address translation (`reliability.md` B14).
pub const PEERS_PER_ADDRESS_MAX: usize = 3;
/// Messages that one read completes: of half a mebibyte, or of a packet, with four bytes each at least.
pub const MESSAGES_READ_MAX: usize = 1 << 18;
/// Messages that change nothing (`reliability.md` B4, B5), less one for each block, before a peer is dropped: honest
/// ones cross with ours now and then.
pub const IDLE_MESSAGES_MAX: u32 = 2 * REQUESTS_QUEUED_MAX;
/// Blocks that were never asked for, from one connection, before it is dropped: half a megabyte for nothing.
pub const UNASKED_BLOCKS_MAX: u32 = 32;
/// Requests for blocks that went out a moment ago, more than for others, before a peer is dropped: whoever fetches the
/// same over and over takes our upload from those who need it. A piece of 2 MiB that failed may be fetched twice more.
pub const REPEATED_REQUESTS_MAX: u32 = 256;
/// How long an address is not let in after a peer there misbehaved.
pub const KEEP_OUT_TIME: Duration = Duration::from_secs(60);
/// Addresses of which that is remembered, for one torrent.
pub const KEPT_OUT_MAX: usize = 1000;
/// Neither side wants anything of the other for this long, and no room is left: gone (libtorrent's `inactivity_timeout`).
pub const INACTIVITY_TIMEOUT: Duration = Duration::from_secs(600);
/// Requests of a choked peer that are answered with a reject until it is unchoked; libtorrent drops it then
/// (`max_rejects`).
pub const CHOKED_REQUESTS_MAX: u32 = 50 + REQUESTS_QUEUED_MAX;
/// A tracker's URL, given or redirected to.
pub const TRACKER_URL_BYTES_MAX: usize = 4096;
/// A tracker's failure reason or warning; more is cut.
pub const TRACKER_TEXT_BYTES_MAX: usize = 512;
/// A tracker id, which goes back to the tracker with each announce; a longer one is ignored.
pub const TRACKER_ID_BYTES_MAX: usize = 256;
/// Addresses of one tracker's name that are tried before the tracker has failed.
pub const TRACKER_ADDRESSES_MAX: usize = 4;
/// The shortest time between announces that is believed, and the least a tracker can ask for.
pub const ANNOUNCE_INTERVAL_MIN: Duration = Duration::from_secs(30);
/// The longest time between announces that is believed.
pub const ANNOUNCE_INTERVAL_MAX: Duration = Duration::from_secs(24 * 3600);
/// For how long nothing comes of what is sought before trackers beside those that answered are asked.
pub const ANNOUNCE_HUNGRY: Duration = Duration::from_secs(30);
/// Between announces where the tracker does not say.
pub const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(30 * 60);
/// From an announce that found nobody to the next, while something is missing: not before the tracker's own minimum.
pub const ANNOUNCE_ALONE: Duration = Duration::from_secs(2 * 60);
/// The least time between announces where the tracker does not say; libtorrent's.
pub const ANNOUNCE_MIN_INTERVAL: Duration = Duration::from_secs(5 * 60);
/// From the first failure of a tracker to the next try; doubles with each.
pub const ANNOUNCE_RETRY_FIRST: Duration = Duration::from_secs(5);
/// The longest of those times, before up to half as much is added at random: no more often than trackers are asked when
/// they work, and soon after an outage.
pub const ANNOUNCE_RETRY_MAX: Duration = Duration::from_secs(10 * 60);
/// The least time between two tries of a tracker when there is reason to believe that the network is back, before up to
/// half as much is added at random.
pub const ANNOUNCE_RENEW: Duration = Duration::from_secs(60);
/// Nothing was heard for this long: what is heard then means that the network is back. A living connection is never
/// silent for so long.
pub const SILENCE: Duration = Duration::from_secs(150);
/// Look-ups and HTTP requests to trackers under way at once, over all torrents; libtorrent's. More wait in line: a
/// thousand torrents that begin together must not freeze a resolver or a home router.
pub const TRACKER_REQUESTS_MAX: usize = 50;
/// How long a connection id of a UDP tracker is used (BEP 15).
pub const UDP_CONNECTION_TIME: Duration = Duration::from_secs(60);
/// UDP trackers whose connection id is remembered.
pub const UDP_CONNECTIONS_MAX: usize = 1024;
/// Info-hashes in one scrape over HTTP: a URL of 4 KiB, which servers take.
pub const SCRAPE_HTTP_HASHES_MAX: usize = 50;
/// The path and query of a request to our tracker.
pub const TRACKER_QUERY_BYTES_MAX: usize = 16 << 10;
/// Info-hashes in one scrape of our tracker.
pub const SCRAPE_HASHES_MAX: usize = 100;
/// Info-hashes in one scrape over UDP (BEP 15: "up to about 74").
pub const SCRAPE_UDP_HASHES_MAX: usize = 74;
/// A magnet link; browsers and shells pass on about as much.
pub const MAGNET_BYTES_MAX: usize = 64 << 10;
/// Peers of one magnet link that are looked at.
pub const MAGNET_PEERS_MAX: usize = 256;
/// The highest index of a file that a magnet link may name (BEP 53).
pub const MAGNET_FILE_INDEX_MAX: u32 = 1 << 20;
/// Files that one magnet link may name, counted as often as it names them.
pub const MAGNET_FILES_MAX: usize = 1 << 16;
/// Torrents in the answer to a scrape of everything.
pub const SCRAPE_ALL_MAX: usize = 1000;
/// A packet of the DHT: what fits an Ethernet frame, and room for those who let theirs be cut up on the way.
pub const DHT_PACKET_BYTES_MAX: usize = 4096;
/// Nodes of one family taken from one packet; honest ones have eight.
pub const DHT_PACKET_NODES_MAX: usize = 20;
/// Peers taken from one packet.
pub const DHT_PACKET_PEERS_MAX: usize = 200;
/// Info-hashes taken from one packet (BEP 51: about 20 fit).
pub const DHT_PACKET_SAMPLES_MAX: usize = 100;
/// What another node may ask us to give back with the answer; most send two bytes or four.
pub const DHT_TRANSACTION_BYTES_MAX: usize = 32;
/// A token of another node, which goes back to it.
pub const DHT_TOKEN_BYTES_MAX: usize = 128;
/// A stored value, bencoded (BEP 44).
pub const DHT_ITEM_BYTES_MAX: usize = 1000;
/// The salt of a changeable item (BEP 44).
pub const DHT_SALT_BYTES_MAX: usize = 64;
/// Nodes of a family that are kept from one run to the next.
pub const DHT_SAVED_NODES_MAX: usize = 300;
/// An announce of local discovery, sent or read (BEP 14).
pub const LSD_DATAGRAM_BYTES_MAX: usize = 1400;
/// Info-hashes in one: as many as fit beside the longest other headers.
pub const LSD_HASHES_MAX: usize = 25;
/// What others know their own announces by; a longer one is nobody's of ours.
pub const LSD_COOKIE_BYTES_MAX: usize = 64;
/// Hosts on local networks whose announces are counted at once.
pub const LSD_HOSTS_MAX: usize = 256;
/// Clients on local networks that are known to have heard us.
pub const LSD_GREETED_MAX: usize = 512;
