// SPDX-License-Identifier: Apache-2.0
#include <boost/json/parse.hpp>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cli/address.h"
#include "cli/render.h"
#include "lib/testing/golden.h"

namespace hawser::cli {
namespace {

namespace json = boost::json;
using ::testing::HasSubstr;

json::object answer(std::string_view text) {
  return json::parse(text).as_object();
}

TEST(Server, Texts) {
  static const struct {
    const char* in;
    const char* want;  // null: an error
  } kCases[] = {
      {"http://127.0.0.1:10249", "127.0.0.1:10249"},
      {"http://127.0.0.1:10249/", "127.0.0.1:10249"},
      {"node-1:10249", "node-1:10249"},
      {"http://[fd00::1]:10249", "[fd00::1]:10249"},
      {"https://127.0.0.1:10249", nullptr},
      {"127.0.0.1", nullptr},
      {"127.0.0.1:0", nullptr},
      {"127.0.0.1:99999", nullptr},
      {"127.0.0.1:1x", nullptr},
      {"fd00::1:80", nullptr},
      {":80", nullptr},
      {"[]:80", nullptr},
      {"", nullptr},
  };
  for (const auto& c : kCases) {
    const auto s = parse_server(c.in);
    ASSERT_EQ(s.has_value(), c.want != nullptr) << c.in;
    if (s) {
      EXPECT_EQ(s->text(), c.want);
    } else {
      EXPECT_THAT(s.error().text, HasSubstr("--server"));
    }
  }
}

TEST(Targets, NamesGetTheirNamespace) {
  EXPECT_EQ(services_target(""), "/inspect/services");
  EXPECT_EQ(services_target("a&b"), "/inspect/services?namespace=a%26b");
  EXPECT_EQ(endpoints_target("", "web"), "/inspect/endpoints?service=web");
  EXPECT_EQ(endpoints_target("shop", "web"), "/inspect/endpoints?service=shop%2Fweb");
  EXPECT_EQ(endpoints_target("shop", "x/web"), "/inspect/endpoints?service=x%2Fweb");
  const auto to = [](const char* destination) {
    return explain_target(
        {.source = "10.244.1.9", .destination = destination, .protocol = "udp", .interface = "", .ns = "shop"});
  };
  const std::string head = "/inspect/explain?source=10.244.1.9&destination=";
  EXPECT_EQ(to("web:80"), head + "shop%2Fweb%3A80&protocol=udp");
  EXPECT_EQ(to("10.96.0.10:80"), head + "10.96.0.10%3A80&protocol=udp");
  EXPECT_EQ(to("[fd00::1]:80"), head + "%5Bfd00%3A%3A1%5D%3A80&protocol=udp");
}

constexpr const char* kHead =
    R"("node": "node-1", "mode": "nftables", "generation": 7, "applied": 7, "ruleset": 42, "settled": true)";

std::string with_head(const std::string& rest) {
  return std::string("{") + kHead + ", " + rest + "}";
}

TEST(Render, Services) {
  const auto a = answer(with_head(R"("agree": false, "services": [
    {"namespace": "default", "name": "web", "endpoints": 3, "ready": 2, "agree": true, "frontends": [
      {"key": "10.96.0.10:80/tcp", "reach": "cluster", "endpoints": 2, "state": "serving", "wanted": [], "found": [], "agree": true},
      {"key": "node port 30080/tcp", "reach": "external, Local", "endpoints": 2, "local": 1, "state": "serving", "agree": true}]},
    {"namespace": "shop", "name": "a-longer-name", "endpoints": 0, "ready": 0, "agree": false, "frontends": [
      {"key": "10.96.0.20:53/udp", "reach": "cluster", "endpoints": 0, "state": "refusing",
       "wanted": ["services4 { 10.96.0.20 . udp . 53 : jump reject-no-endpoint }"], "found": [], "agree": false}]}])"));
  hawser::testing::expect_golden("cli/testdata/services.txt", render_services(a));
  EXPECT_FALSE(agrees(a));
}

TEST(Render, Endpoints) {
  const auto a = answer(with_head(R"("agree": true, "service": "default/web", "wanted": [], "found": [], "endpoints": [
    {"address": "10.244.1.2", "port": 8080, "portName": "http", "slices": ["default/web-x1"], "ready": true, "serving": true,
     "terminating": false, "local": true, "weight": 1, "share": "1/1", "why": "ready"},
    {"address": "10.244.2.2", "port": 8080, "portName": "", "slices": ["default/web-x1", "default/web-x2"], "ready": false,
     "serving": true, "terminating": true, "local": false, "weight": 3, "share": "0/1",
     "why": "terminating: keeps its flows, gets no new ones"}])"));
  hawser::testing::expect_golden("cli/testdata/endpoints.txt", render_endpoints(a));
  EXPECT_TRUE(agrees(a));
}

TEST(Render, Explain) {
  const auto a = answer(with_head(R"("agree": true, "service": "default/web",
    "query": {"source": "10.244.1.9", "destination": "10.96.0.10", "port": 80, "protocol": "tcp"},
    "steps": [{"step": "frontend", "object": "Service default/web", "model": "10.96.0.10:80/tcp", "kernel": "10.96.0.10:80/tcp",
      "wanted": ["services4 { 10.96.0.10 . tcp . 80 : jump ip-internal-1 }"],
      "found": ["services4 { 10.96.0.10 . tcp . 80 : jump ip-internal-1 }"], "agree": true},
      {"step": "masquerade", "object": "", "model": "the source is kept", "kernel": "the source is kept", "wanted": [], "found": [], "agree": true}],
    "verdict": {"model": "to 10.244.1.2:8080, the source is kept", "kernel": "to 10.244.1.2:8080, the source is kept"})"));
  hawser::testing::expect_golden("cli/testdata/explain.txt", render_explain(a));
}

TEST(Render, ExplainDisagreement) {
  const auto a =
      answer(R"({"node": "node-1", "mode": "nftables", "generation": 8, "applied": 7, "ruleset": 42, "settled": false,
    "agree": false, "query": {"source": "fd00::9", "destination": "fd00:96::1", "port": 80, "protocol": "tcp"},
    "steps": [{"step": "frontend", "object": "Service default/web", "model": "[fd00:96::1]:80/tcp",
      "kernel": "no Service: the packet goes on unchanged", "wanted": ["services6 { fd00:96::1 . tcp . 80 : jump ip6-internal-1 }"],
      "found": ["cluster-ips6 { fd00:96::1 }"], "agree": false}],
    "verdict": {"model": "to [fd00::2]:8080, the source is kept", "kernel": "goes on unchanged"}})");
  hawser::testing::expect_golden("cli/testdata/explain_disagreement.txt", render_explain(a));
  EXPECT_FALSE(agrees(a));
}

TEST(Render, Status) {
  const auto a = answer(with_head(R"("agree": false, "services": 3, "frontends": 5, "differences": 1,
    "drift": ["lacks services4 { 10.96.0.10 . tcp . 80 : jump ip-internal-2 }"])"));
  hawser::testing::expect_golden("cli/testdata/status.txt", render_status(a));
}

TEST(Render, AnythingElseIsNoCrash) {
  for (const char* text :
       {"{}", R"({"steps": 3, "query": [], "services": {"a": 1}, "endpoints": [1, null, "x"], "agree": "?"})",
        R"({"steps": [[]], "services": [{"frontends": [7]}], "drift": [{}], "verdict": "x"})"}) {
    const auto a = answer(text);
    EXPECT_FALSE(render_services(a).empty());
    EXPECT_FALSE(render_endpoints(a).empty());
    EXPECT_FALSE(render_explain(a).empty());
    EXPECT_FALSE(render_status(a).empty());
    EXPECT_TRUE(agrees(a));
  }
}

}  // namespace
}  // namespace hawser::cli
