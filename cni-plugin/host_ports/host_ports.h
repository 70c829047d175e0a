// SPDX-License-Identifier: Apache-2.0
// HostPorts: the host ports of this node's attachments (FEATURES C31, C74, X03). One record file per attachment, named
// like its host link, in <run>/hostports; the kernel's table follows from the records. Under one lock, coming
// is: write the record, make the table equal to all records; going: make the table equal to all others, remove it. So a
// kill anywhere is repaired by whoever comes next (an ADD, a DEL, GC, the leak collector), as is a table that somebody
// flushed.
//
// UDP flows whose translation changed are removed from conntrack, else a client that keeps its socket would go on to
// where the port led before.
#pragma once

#include <functional>
#include <set>
#include <string>

#include "cni-plugin/host_ports/plan.h"
#include "lib/base/atomic_file.h"
#include "lib/netlink/conntrack.h"
#include "lib/nft/runner.h"

namespace hawser::cni {

class HostPorts {
 public:
  struct Kernel {
    nft::NftRunner& nft;
    netlink::Conntrack& conntrack;
  };
  // The file that shows whether an attachment has host ports, without opening anything.
  [[nodiscard]] static std::string record_path(const std::string& folder, const std::string& name);
  // Makes the folder if missing; holds its lock while the object lives.
  static Result<HostPorts> open(std::string folder, Kernel kernel);

  // EADDRINUSE: another attachment has one of the ports. On any failure nothing is left.
  Result<> put(const std::string& name, const HostPortRecord& record);
  // Success if there is none.
  Result<> drop(const std::string& name);
  // The first difference between record, `ports` and kernel as a sentence; empty: none.
  Result<std::string> fault(const std::string& name, const std::vector<PortMapping>& ports);
  // Drops every record that `live` denies and repairs the table; the names of those dropped. Goes on past failures.
  Result<std::vector<std::string>> keep_only(
      const std::function<bool(const std::string& name, const HostPortRecord&)>& live);

 private:
  struct Named {
    std::string name;
    HostPortRecord record;
  };
  HostPorts(std::string folder, FileLock lock, Kernel kernel)
      : folder_(std::move(folder)), lock_(std::move(lock)), kernel_(kernel) {}
  Result<std::vector<Named>> read_records();
  Result<Elements> read_elements(const nft::TableState& table);
  // Makes the kernel's table equal to all records but the one named.
  Result<> sync(const std::string& without = {});
  Result<> forget_flows(const HostPortRecord& record, bool going);

  std::string folder_;
  FileLock lock_;
  Kernel kernel_;
};

}  // namespace hawser::cni
