#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# lib/netlink on Debian's kernel, with what this machine's may lack: WireGuard and IPVS read back what was written.
# modules: wireguard ip_vs_rr vxlan veth bridge
# commands: bridge
# programs: lib/netlink/netlink_kernel_test
. /library.sh

googletest netlink_kernel_test
