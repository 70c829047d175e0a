#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# proxyd switches between nftables and IPVS, and takes over from kube-proxy, under traffic.
# modules: ip_vs_rr dummy veth bridge nf_conntrack_netlink
# modules: nft_chain_nat nft_nat nft_ct nft_masq nft_numgen nft_redir nft_fib_inet nft_reject_inet nft_limit
# commands: nft sysctl
# programs: tests/netns/proxyd_switch_test
. /library.sh

# Thousands of short connections stay for two minutes; a guest's small memory makes for small limits.
sysctl -qw net.netfilter.nf_conntrack_max=262144 net.ipv4.tcp_max_tw_buckets=131072

# The takeover from iptables needs nothing that other machines lack: it runs there.
googletest proxyd_switch_test '--gtest_filter=-*Iptables'
