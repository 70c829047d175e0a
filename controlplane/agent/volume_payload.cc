// SPDX-License-Identifier: Apache-2.0
#include "controlplane/agent/volume_payload.h"

#include <filesystem>
#include <set>

#include <sys/stat.h>
#include <unistd.h>

#include "lib/base/atomic_file.h"
#include "lib/base/random.h"
#include "lib/kube/object.h"

namespace hawser::agent {
namespace {

namespace fs = std::filesystem;
using kube::Object;

unsigned mode_of(const Object& item, unsigned otherwise) {
  return static_cast<unsigned>(kube::num(item, {"mode"}, otherwise)) & 0777;
}

// A path that stays inside the volume.
Result<std::string> checked_path(std::string_view path) {
  const fs::path p(path);
  if (path.empty() || p.is_absolute()) return fail(EINVAL, "path {:?}: must be relative and not empty", path);
  for (const auto& part : p)
    if (part == "..") return fail(EINVAL, "path {:?}: must not contain \"..\"", path);
  return std::string(path);
}

class PayloadBuilder {
 public:
  PayloadBuilder(const PodSpec& spec, const PayloadInputs& in) : spec_(spec), in_(in) {}

  // `source` is {name|secretName, items, optional}.
  Result<> add_object(bool secret, const Object& source, unsigned mode) {
    std::string name(kube::str(source, {"name"}));
    if (name.empty()) name = kube::str(source, {"secretName"});
    const bool optional = kube::flag(source, {"optional"});
    auto object = in_.lookup(secret ? kube::kSecrets : kube::kConfigMaps, name);
    if (!object) {
      if (is_not_found(object.error()) && optional) return {};
      return propagate(object);
    }
    const auto& items = kube::arr(source, {"items"});
    if (items.empty()) {
      for (const auto& key : object_keys(**object)) {
        if (auto v = object_key(**object, secret, key)) payload_[key] = {*v, mode};
      }
      return {};
    }
    for (const auto& v : items) {
      const Object& item = kube::as_obj(v);
      auto value = object_key(**object, secret, kube::str(item, {"key"}));
      if (!value && optional) continue;
      if (!value)
        return fail(ENOENT, "references non-existent {} key: {}", secret ? "secret" : "config",
                    kube::str(item, {"key"}));
      if (auto r = put(item, *value, mode); !r) return r;
    }
    return {};
  }

  Result<> add_downward(const Object& source, unsigned mode) {
    for (const auto& v : kube::arr(source, {"items"})) {
      const Object& item = kube::as_obj(v);
      Result<std::string> value;
      if (kube::find(item, {"resourceFieldRef"})) {
        const Object& ref = kube::obj(item, {"resourceFieldRef"});
        const ContainerSpec* c = spec_.container(kube::str(ref, {"containerName"}));
        if (!c) return fail(EINVAL, "container {:?} not found", kube::str(ref, {"containerName"}));
        value = resource_value(*c->object, kube::str(ref, {"resource"}), kube::str(ref, {"divisor"}), in_.facts);
      } else {
        value = field_value(spec_, kube::str(item, {"fieldRef", "fieldPath"}), in_.facts);
      }
      if (!value) return propagate(value);
      if (auto r = put(item, *value, mode); !r) return r;
    }
    return {};
  }

  Result<> add_token(const Object& source, unsigned mode) {
    auto token =
        in_.token(std::string(kube::str(source, {"audience"})), kube::num(source, {"expirationSeconds"}, 3600));
    if (!token) return propagate(token);
    return *token ? put(source, **token, mode) : Result<>{};
  }

  Result<> add_projected(const Object& source) {
    const unsigned mode = static_cast<unsigned>(kube::num(source, {"defaultMode"}, 0644)) & 0777;
    for (const auto& v : kube::arr(source, {"sources"})) {
      const Object& s = kube::as_obj(v);
      Result<> r;
      if (kube::find(s, {"configMap"}))
        r = add_object(false, kube::obj(s, {"configMap"}), mode);
      else if (kube::find(s, {"secret"}))
        r = add_object(true, kube::obj(s, {"secret"}), mode);
      else if (kube::find(s, {"downwardAPI"}))
        r = add_downward(kube::obj(s, {"downwardAPI"}), mode);
      else if (kube::find(s, {"serviceAccountToken"}))
        r = add_token(kube::obj(s, {"serviceAccountToken"}), mode);
      if (!r) return r;
    }
    return {};
  }

  Payload take() { return std::move(payload_); }

 private:
  Result<> put(const Object& item, std::string value, unsigned mode) {
    auto path = checked_path(kube::str(item, {"path"}));
    if (!path) return propagate(path);
    payload_[*path] = {std::move(value), mode_of(item, mode)};
    return {};
  }

  const PodSpec& spec_;
  const PayloadInputs& in_;
  Payload payload_;
};

Payload read_back(const fs::path& data_dir) {
  Payload out;
  std::error_code ec;
  for (fs::recursive_directory_iterator it(data_dir, ec), end; !ec && it != end; it.increment(ec)) {
    if (!it->is_regular_file(ec)) continue;
    auto content = read_file(it->path());
    struct stat st {};
    if (!content || ::stat(it->path().c_str(), &st) != 0) continue;
    out[fs::relative(it->path(), data_dir, ec).string()] = {std::move(*content), st.st_mode & 0777};
  }
  return out;
}

Result<> write_version(const fs::path& dir, const Payload& payload, std::int64_t gid) {
  for (const auto& [path, file] : payload) {
    const fs::path target = dir / path;
    if (auto r = make_folders(target.parent_path()); !r) return r;
    const unsigned mode = gid >= 0 ? file.mode | ((file.mode & 0400) >> 3) : file.mode;
    if (auto r = write_file(target, file.content, {.mode = mode}); !r) return r;
    if (::chmod(target.c_str(), mode) != 0) return fail_errno(errno, "chmod {}", target.string());
    if (gid >= 0 && ::chown(target.c_str(), static_cast<uid_t>(-1), static_cast<gid_t>(gid)) != 0)
      return fail_errno(errno, "chown {}", target.string());
  }
  return {};
}

Result<> replace_link(const fs::path& link, const fs::path& target) {
  const fs::path next = link.string() + "_tmp";
  ::unlink(next.c_str());
  if (::symlink(target.c_str(), next.c_str()) != 0) return fail_errno(errno, "symlink {}", next.string());
  if (::rename(next.c_str(), link.c_str()) != 0) return fail_errno(errno, "rename {}", link.string());
  return {};
}

// Names at the top of the volume: links to ..data/NAME, no others.
Result<> write_top_links(const fs::path& dir, const Payload& payload) {
  std::set<std::string> wanted;
  for (const auto& [path, file] : payload) wanted.insert(fs::path(path).begin()->string());
  std::error_code ec;
  for (const auto& name : wanted) {
    if (!fs::is_symlink(dir / name, ec))
      if (auto r = replace_link(dir / name, fs::path("..data") / name); !r) return r;
  }
  for (fs::directory_iterator it(dir, ec), end; !ec && it != end; it.increment(ec)) {
    const std::string name = it->path().filename();
    if (!name.starts_with("..") && !wanted.contains(name)) fs::remove_all(it->path(), ec);
  }
  return {};
}

}  // namespace

bool has_payload(const Object& volume) {
  for (const char* kind : {"configMap", "secret", "downwardAPI", "projected"})
    if (kube::find(volume, {kind})) return true;
  return false;
}

Result<Payload> payload_of(const PodSpec& spec, const Object& volume, const PayloadInputs& in) {
  PayloadBuilder b(spec, in);
  Result<> r;
  for (const char* kind : {"configMap", "secret", "downwardAPI", "projected"}) {
    if (!kube::find(volume, {kind})) continue;
    const Object& source = kube::obj(volume, {kind});
    const unsigned mode = static_cast<unsigned>(kube::num(source, {"defaultMode"}, 0644)) & 0777;
    const std::string_view k = kind;
    r = k == "projected"     ? b.add_projected(source)
        : k == "downwardAPI" ? b.add_downward(source, mode)
                             : b.add_object(k == "secret", source, mode);
  }
  if (!r) return propagate(r);
  return b.take();
}

Result<bool> write_payload(const std::string& dir, const Payload& payload, std::int64_t gid) {
  const fs::path root(dir);
  if (auto r = make_folders(dir); !r) return propagate(r);
  std::error_code ec;
  const fs::path data = root / "..data";
  Payload wanted = payload;
  if (gid >= 0)
    for (auto& [path, file] : wanted) file.mode |= (file.mode & 0400) >> 3;
  const fs::path old = fs::read_symlink(data, ec);
  if (!ec && read_back(data) == wanted) return false;
  const fs::path version = "..v" + name_suffix(10);
  if (auto r = make_folders(root / version); !r) return propagate(r);
  if (auto r = write_version(root / version, payload, gid); !r) {
    fs::remove_all(root / version, ec);
    return propagate(r);
  }
  if (auto r = replace_link(data, version); !r) return propagate(r);
  if (auto r = write_top_links(root, payload); !r) return propagate(r);
  if (!old.empty()) fs::remove_all(root / old, ec);
  return true;
}

}  // namespace hawser::agent
