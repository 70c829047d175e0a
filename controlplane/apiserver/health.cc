// SPDX-License-Identifier: Apache-2.0
#include "controlplane/apiserver/health.h"

#include "controlplane/apiserver/render.h"

namespace hawser::apiserver {

http::Response Health::answer(const http::Request& r, const std::string& endpoint, const std::string& check) const {
  std::string report;
  bool good = true;
  bool known = check.empty();
  auto excluded = r.query("exclude");
  for (auto& c : checks_) {
    if (c.only_ready && endpoint != "readyz") continue;
    if (!check.empty() && c.name != check) continue;
    known = true;
    if (c.name == excluded) {
      report += fmt::format("[+]{} excluded: ok\n", c.name);
      continue;
    }
    bool ok = c.good();
    good = good && ok;
    report += ok ? fmt::format("[+]{} ok\n", c.name) : fmt::format("[-]{} failed: reason withheld\n", c.name);
  }
  if (!known) return render_status(kube::not_found("", endpoint, check));
  if (!good) return render_text(500, fmt::format("{}{} check failed\n", report, endpoint));
  if (!r.has_query("verbose")) return render_text(200, "ok");
  return render_text(200, fmt::format("{}{} check passed\n", report, endpoint));
}

}  // namespace hawser::apiserver
