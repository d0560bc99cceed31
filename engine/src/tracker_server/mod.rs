//! Announce and scrape answers: a tracker without sockets.
