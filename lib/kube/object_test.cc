// SPDX-License-Identifier: Apache-2.0
// Objects, selectors and statuses.
#include "lib/kube/object.h"

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <gtest/gtest.h>

#include "lib/kube/selector.h"
#include "lib/kube/status.h"

namespace hawser::kube {
namespace {

Object parse(std::string_view s) {
  return boost::json::parse(s).as_object();
}

TEST(ObjectTest, AccessorsAreTotal) {
  Object o = parse(
      R"({"metadata":{"name":"web","namespace":"default","uid":"u","resourceVersion":"7","deletionTimestamp":null},
    "spec":{"replicas":3,"ratio":2.0,"half":0.5,"paused":true,"ports":[1],"big":18446744073709551615},"odd":"text"})");
  EXPECT_EQ(name(o), "web");
  EXPECT_EQ(key(o), "default/web");
  EXPECT_EQ(key(parse(R"({"metadata":{"name":"n"}})")), "n");
  EXPECT_EQ(uid(o), "u");
  EXPECT_EQ(resource_version(o), "7");
  EXPECT_FALSE(deleting(o)) << "null is absent";
  EXPECT_EQ(num(o, {"spec", "replicas"}), 3);
  EXPECT_EQ(num(o, {"spec", "ratio"}), 2);
  EXPECT_EQ(num(o, {"spec", "half"}, -1), -1);
  EXPECT_EQ(num({{"port", std::uint64_t{6443}}}, {"port"}), 6443);
  EXPECT_EQ(num(o, {"spec", "big"}, -1), -1);
  EXPECT_EQ(num(o, {"odd"}, -1), -1);
  EXPECT_TRUE(flag(o, {"spec", "paused"}));
  EXPECT_TRUE(flag(o, {"spec", "absent"}, true));
  EXPECT_EQ(str(o, {"spec", "replicas"}), "");
  EXPECT_EQ(str(o, {"odd", "deeper", "still"}), "");
  EXPECT_EQ(arr(o, {"spec", "ports"}).size(), 1u);
  EXPECT_TRUE(arr(o, {"odd"}).empty());
  EXPECT_TRUE(obj(o, {"nothing"}).empty());
  ensure(o, {"metadata", "labels"})["a"] = "b";
  ensure(o, {"odd", "now"})["x"] = 1;
  EXPECT_EQ(str(o, {"metadata", "labels", "a"}), "b");
  EXPECT_EQ(num(o, {"odd", "now", "x"}), 1);
}

TEST(ObjectTest, ControllerIsTheOwnerThatControls) {
  Object o = parse(R"({"metadata":{"ownerReferences":[{"name":"a"},{"name":"b","controller":true}]}})");
  EXPECT_EQ(str(controller_of(o), {"name"}), "b");
  EXPECT_TRUE(controller_of(Object()).empty());
}

TEST(SelectorTest, MatchesAsKubernetesDoes) {
  struct Case {
    const char* selector;
    const char* labels;
    bool want;
  };
  const Case cases[] = {
      {"", "{}", true},
      {"app=web", R"({"app":"web"})", true},
      {"app==web", R"({"app":"web"})", true},
      {"app=web", R"({"app":"db"})", false},
      {"app=web", "{}", false},
      {"app!=web", "{}", true},
      {"app!=web", R"({"app":"web"})", false},
      {"app", R"({"app":""})", true},
      {"!app", R"({"app":""})", false},
      {"! app", "{}", true},
      {"tier in (a, b)", R"({"tier":"b"})", true},
      {"tier in (a, b)", R"({"tier":"c"})", false},
      {"tier notin (a,b)", R"({"tier":"c"})", true},
      {"tier notin (a,b)", "{}", true},
      {"tier in (a,)", R"({"tier":""})", true},
      {"app=", R"({"app":""})", true},
      {"a=1,b=2", R"({"a":"1","b":"2"})", true},
      {"a=1,b=2", R"({"a":"1"})", false},
      {"n>3", R"({"n":"4"})", true},
      {"n>3", R"({"n":"x"})", false},
      {"n<3", R"({"n":"-4"})", true},
      {"kubernetes.io/name=x", R"({"kubernetes.io/name":"x"})", true},
      {"in in (in)", R"({"in":"in"})", true},
  };
  for (const auto& c : cases) {
    auto s = LabelSelector::parse(c.selector);
    ASSERT_TRUE(s) << c.selector << ": " << s.error().text;
    EXPECT_EQ(s->matches(parse(c.labels)), c.want) << c.selector << " on " << c.labels;
    auto again = LabelSelector::parse(s->text());
    ASSERT_TRUE(again) << s->text();
    EXPECT_EQ(again->matches(parse(c.labels)), c.want) << s->text();
  }
  for (const char* bad : {",", "a,", "=a", "a in", "a in (", "a in (b", "a in b", "!", "!a=b", "a=b c", "a b", "a=(b)",
                          "-a=b", "a=b=c", "x/y/z=1", "a=*", "n>x", "(a)"})
    EXPECT_FALSE(LabelSelector::parse(bad)) << bad;
}

TEST(SelectorTest, ObjectForm) {
  auto s = LabelSelector::from_object(parse(R"({"matchLabels":{"app":"web"},
    "matchExpressions":[{"key":"tier","operator":"In","values":["a","b"]},{"key":"old","operator":"DoesNotExist"}]})"));
  ASSERT_TRUE(s) << s.error().text;
  EXPECT_EQ(s->text(), "app=web,!old,tier in (a,b)");
  EXPECT_TRUE(s->matches(parse(R"({"app":"web","tier":"a"})")));
  EXPECT_FALSE(s->matches(parse(R"({"app":"web","tier":"a","old":""})")));
  EXPECT_TRUE(LabelSelector::from_object({})->empty());
  EXPECT_EQ(LabelSelector::from_map(parse(R"({"b":"2","a":"1"})")).text(), "a=1,b=2");
  for (const char* bad : {R"({"matchExpressions":[{"key":"a","operator":"Near"}]})",
                          R"({"matchExpressions":[{"key":"a","operator":"In"}]})",
                          R"({"matchExpressions":[{"key":"a","operator":"Exists","values":["x"]}]})",
                          R"({"matchExpressions":[{"operator":"Exists"}]})"})
    EXPECT_FALSE(LabelSelector::from_object(parse(bad))) << bad;
}

TEST(SelectorTest, Fields) {
  auto f = parse_field_selector(R"(metadata.name=web,status.phase!=Running,spec.nodeName==n\,1)").value();
  ASSERT_EQ(f.size(), 3u);
  EXPECT_EQ(f[0].path, "metadata.name");
  EXPECT_TRUE(f[0].equal);
  EXPECT_EQ(f[1].value, "Running");
  EXPECT_FALSE(f[1].equal);
  EXPECT_EQ(f[2].value, "n,1");
  EXPECT_TRUE(parse_field_selector("")->empty());
  EXPECT_EQ(parse_field_selector("spec.nodeName=")->at(0).value, "");
  for (const char* bad : {"name", "a!b", "a=b=c", "a=\\x", "a=\\"}) EXPECT_FALSE(parse_field_selector(bad)) << bad;
}

TEST(StatusTest, TextsAreKubernetes) {
  EXPECT_EQ(not_found("", "services", "web").message, R"(services "web" not found)");
  EXPECT_EQ(not_found("apps", "deployments", "web").message, R"(deployments.apps "web" not found)");
  EXPECT_EQ(already_exists("", "pods", "a").message, R"(pods "a" already exists)");
  EXPECT_EQ(conflict("", "pods", "a", "why").message, R"(Operation cannot be fulfilled on pods "a": why)");
  EXPECT_EQ(forbidden("", "pods", "a", "why").message, R"(pods "a" is forbidden: why)");
  EXPECT_EQ(forbidden("", "pods", "", "why").message, "pods is forbidden: why");
  EXPECT_EQ(method_not_supported("", "nodes", "patch").message,
            R"(patch is not supported on resources of kind "nodes")");
  EXPECT_EQ(timeout("request did not complete", 3).message, "Timeout: request did not complete");
  EXPECT_EQ(internal_error("x").message, "Internal error occurred: x");
  EXPECT_EQ(
      boost::json::serialize(unauthorized().to_json()),
      R"({"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"Unauthorized","reason":"Unauthorized","code":401})");
}

TEST(StatusTest, InvalidListsItsCausesAndComesBack) {
  using T = FieldError::Type;
  FieldError port{T::kInvalid, "spec.ports[0].port", "70000", "must be between 1 and 65535, inclusive"};
  EXPECT_EQ(
      invalid("", "Service", "web", {port}).message,
      R"(Service "web" is invalid: spec.ports[0].port: Invalid value: 70000: must be between 1 and 65535, inclusive)");
  auto s = invalid("apps", "Deployment", "web",
                   {port,
                    port,
                    {T::kRequired, "spec.selector", "", ""},
                    {T::kNotSupported, "spec.type", "\"X\"", "supported values: \"A\""}});
  EXPECT_EQ(s.message,
            "Deployment.apps \"web\" is invalid: [spec.ports[0].port: Invalid value: 70000: must be between 1 and "
            "65535, inclusive, "
            "spec.selector: Required value, spec.type: Unsupported value: \"X\": supported values: \"A\"]");
  auto json = s.to_json();
  EXPECT_EQ(json.at("code"), 422);
  EXPECT_EQ(arr(json, {"details", "causes"}).size(), 4u);
  auto back = Status::from_json(json);
  EXPECT_EQ(back.to_json(), json);
  EXPECT_EQ(back.causes[2].type, T::kRequired);
  EXPECT_EQ(back.to_error(), (Error{422, s.message, "Invalid"}));
}

}  // namespace
}  // namespace hawser::kube
