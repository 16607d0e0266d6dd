//! Bridges, veth pairs, addresses and nftables over netlink.
