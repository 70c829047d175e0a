#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# proxyd's node ports on loopback: Linux 6.1 takes the BPF programs, and traffic goes as on the machine's own.
# modules: veth bridge nf_conntrack_netlink
# modules: nft_chain_nat nft_nat nft_ct nft_masq nft_numgen nft_redir nft_fib_inet nft_reject_inet nft_limit nft_hash
# commands: nft sysctl
# programs: tests/netns/proxyd_localhost_test
. /library.sh

mkdir -p /sys/fs/cgroup
mount -t cgroup2 none /sys/fs/cgroup
googletest proxyd_localhost_test
