// SPDX-License-Identifier: Apache-2.0
// Responses: entries and statuses as the bytes a client asked for. A plain JSON object or list is put together from the
// entries' own bytes, without serializing anything. Pure, any thread.
#pragma once

#include "controlplane/apiserver/negotiate.h"
#include "controlplane/apiserver/registry.h"
#include "lib/http/message.h"

namespace hawser::apiserver {

struct View {
  Accepted accepted;
  schema::IncludeObject include = schema::IncludeObject::kMetadata;
  std::int64_t now = 0;  // Unix seconds, for ages in tables
};

http::Response render_entry(const Kind& k, const EntryPtr& e, const View& v, int status = 200);
http::Response render_list(const Kind& k, const ListReply& l, const View& v);
// Any other object (Scale, Status of success, ...).
http::Response render_object(const Object& o, bool yaml, int status = 200);
http::Response render_status(const kube::Status& s);
// The same JSON document with line breaks and two spaces a level, as kube-apiserver writes it when asked for.
std::string pretty_json(std::string_view text);
http::Response render_text(int status, std::string body, std::string_view type = "text/plain; charset=utf-8");
// A metav1.Status of success about one object, as DELETE answers.
Object success_about(const Kind& k, const Entry& e);

// The object of one watch event in a shape other than the plain one.
Object shaped_object(const Kind& k, const ObjectPtr& o, const View& v, bool with_columns);
// The object of a bookmark.
Object bookmark_object(const Kind& k, Revision revision, bool initial_events_end, const View& v);

}  // namespace hawser::apiserver
