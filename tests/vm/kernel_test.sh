#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The guest itself: the kernel, modules with what they need, namespaces. If this fails, nothing else here means anything.
# modules: veth wireguard ip_vs_rr dummy nf_tables vxlan bridge
. /library.sh

check "is a kernel of 6.1 or later" sh -c 'v=$(cut -d" " -f3 /proc/version); [ "${v%%.*}" -gt 6 ] || [ "${v%%.*}" = 6 ]'
check "IPVS is there" test -e /proc/net/ip_vs
check "a WireGuard device can be made" ip link add wg0 type wireguard
check "a dummy device can be made" ip link add ipvs0 type dummy
ip netns add a
check "namespaces and veth work" sh -c 'ip link add v0 type veth peer name v1 netns a && ip netns exec a ip link show v1'
