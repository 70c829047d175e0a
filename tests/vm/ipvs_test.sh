#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# proxyd's mode ipvs with traffic: cluster IPs, node ports, both families, affinity, drain, adoption, cleanup.
# modules: ip_vs_rr ip_vs_wrr ip_vs_lc ip_vs_wlc ip_vs_sh ip_vs_mh dummy veth bridge nf_conntrack_netlink
# modules: nft_chain_nat nft_nat nft_ct nft_masq nft_numgen nft_redir nft_fib_inet nft_reject_inet nft_limit
# commands: nft sysctl
# programs: tests/netns/proxyd_ipvs_test
. /library.sh

googletest proxyd_ipvs_test
