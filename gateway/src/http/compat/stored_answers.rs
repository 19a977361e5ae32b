//! Earlier replies as OpenAI's APIs list and show them, read from the log.

use axum::extract::{Path as UrlPath, RawQuery};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use convergio_application::Caller;
use convergio_domain::chat::{ChatField, ChatInterface};
use convergio_projections::RunFilter;
use serde_json::{Value, json};

use super::compat_state::{CompatState, RequestIdExtension};
use super::dialect::WholeReply;
use super::error_format::ErrorFormat;
use super::field_table::FieldPath;
use super::refusal::{CompatRefusal, to_response};
use super::stored_runs::{StoredRun, read_run};
use super::{chat, responses};
use crate::problem::RequestId;
use crate::state::CallerExtension;

/// Maximum runs that are read for one page: the filters are not indexed.
const SCANNED_RUNS_LIMIT: usize = 500;
/// Runs read at once.
const SCANNED_RUNS_PER_READ: usize = 50;

/// The parameters of a query string.
pub(super) struct ListQuery(Vec<(String, String)>);

impl ListQuery {
    /// Reads the parameters and rejects unknown ones by name. A known name `name[*]` allows
    /// `name[key]`.
    pub(super) fn read_known(query: Option<&str>, known: &[&str]) -> Result<Self, CompatRefusal> {
        // axum parses a query only as part of a URI.
        let uri = format!("/?{}", query.unwrap_or_default());
        let unreadable_query = || CompatRefusal::invalid_field("", "the query cannot be read");
        let uri: axum::http::Uri = uri.parse().map_err(|_| unreadable_query())?;
        let pairs = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(&uri);
        let pairs = pairs.map_err(|_| unreadable_query())?.0;
        for (name, _) in &pairs {
            let is_part = known.iter().any(|known| {
                let field = known.strip_suffix("[*]");
                field.is_some_and(|field| bracketed_name(name, field).is_some())
            });
            if !is_part && !known.contains(&name.as_str()) {
                let name: String = name.chars().take(100).collect();
                return Err(FieldPath::ROOT
                    .field(&name)
                    .refuse("this parameter is not known here"));
            }
        }
        Ok(Self(pairs))
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Returns the bracketed parameters of a field, as in `metadata[color]=red`.
    fn bracketed_values<'a>(&'a self, field: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        let part = move |(name, value): &'a (String, String)| {
            bracketed_name(name, field).map(|name| (name, value.as_str()))
        };
        self.0.iter().filter_map(part)
    }

    pub(super) fn page_limit(
        &self,
        default: usize,
        limit_max: usize,
    ) -> Result<usize, CompatRefusal> {
        let Some(text) = self.get("limit") else { return Ok(default) };
        let limit = text.parse().ok().filter(|limit| (1..=limit_max).contains(limit));
        limit.ok_or_else(|| {
            FieldPath::ROOT
                .field("limit")
                .refuse(format!("must be a whole number from 1 to {limit_max}"))
        })
    }
}

/// Returns the key of a bracketed parameter, if it is one of this field.
fn bracketed_name<'a>(name: &'a str, field: &str) -> Option<&'a str> {
    let part = name.strip_prefix(field)?.strip_prefix('[')?.strip_suffix(']')?;
    (!part.is_empty()).then_some(part)
}

async fn find_stored_run(
    compat_state: &CompatState,
    caller: &Caller,
    run: Option<&str>,
    interface: ChatInterface,
) -> Result<StoredRun, CompatRefusal> {
    let found = match run {
        Some(run) => read_run(compat_state, caller, run).await?,
        None => None,
    };
    // A run of another API must not be shown in this one's format.
    let found = found.filter(|stored| stored.request.door == Some(interface));
    found.ok_or_else(|| CompatRefusal::not_found("there is no answer of this id"))
}

/// Handles the retrieval of a response by its id.
pub(super) async fn show_response(
    Extension(compat_state): Extension<CompatState>,
    Extension(caller): CallerExtension,
    Extension(RequestId(request)): RequestIdExtension,
    UrlPath(id): UrlPath<String>,
    RawQuery(query): RawQuery,
) -> Response {
    let answer = async {
        // `include` is accepted and changes nothing here.
        let query = ListQuery::read_known(query.as_deref(), &["include", "include[]", "stream"])?;
        if query.get("stream").is_some_and(|stream| stream != "false") {
            return Err(FieldPath::ROOT.field("stream").refuse("not available here: leave it out"));
        }
        let run = responses::run_of_response(&id);
        let stored =
            find_stored_run(&compat_state, &caller, run, ChatInterface::OpenAiResponses).await?;
        let body = responses::stored_response(run.unwrap_or_default(), &stored);
        Ok(Json(body).into_response())
    };
    to_response(answer.await, ErrorFormat::OpenAi, &request)
}

/// Handles the listing of a response's input items.
pub(super) async fn list_input_items(
    Extension(compat_state): Extension<CompatState>,
    Extension(caller): CallerExtension,
    Extension(RequestId(request)): RequestIdExtension,
    UrlPath(id): UrlPath<String>,
    RawQuery(query): RawQuery,
) -> Response {
    let answer = async {
        let known = ["after", "include", "include[]", "limit", "order"];
        let query = ListQuery::read_known(query.as_deref(), &known)?;
        let run = responses::run_of_response(&id);
        let stored =
            find_stored_run(&compat_state, &caller, run, ChatInterface::OpenAiResponses).await?;
        let mut items = responses::input_items(run.unwrap_or_default(), &stored.request);
        match query.get("order") {
            None | Some("desc") => items.reverse(),
            Some("asc") => {}
            Some(_) => return Err(FieldPath::ROOT.field("order").refuse("must be asc or desc")),
        }
        if let Some(after) = query.get("after") {
            let place = items.iter().position(|item| item["id"] == after);
            items.drain(..place.map_or(0, |place| place + 1));
        }
        let limit = query.page_limit(20, 100)?;
        let has_more = items.len() > limit;
        items.truncate(limit);
        Ok(Json(list_page(&items, has_more)).into_response())
    };
    to_response(answer.await, ErrorFormat::OpenAi, &request)
}

fn list_page(items: &[Value], has_more: bool) -> Value {
    let id = |item: Option<&Value>| item.map_or(Value::Null, |item| item["id"].clone());
    json!({"object": "list", "data": items, "first_id": id(items.first()),
        "last_id": id(items.last()), "has_more": has_more})
}

/// Handles the retrieval of a stored chat completion.
pub(super) async fn show_completion(
    Extension(compat_state): Extension<CompatState>,
    Extension(caller): CallerExtension,
    Extension(RequestId(request)): RequestIdExtension,
    UrlPath(id): UrlPath<String>,
) -> Response {
    let run = id.strip_prefix("chatcmpl-");
    let stored = find_stored_run(&compat_state, &caller, run, ChatInterface::OpenAiChat).await;
    let answer = stored.and_then(|stored| {
        let shown = stored_completion(run.unwrap_or_default(), &stored);
        let shown =
            shown.ok_or_else(|| CompatRefusal::not_found("there is no answer of this id"))?;
        Ok(Json(shown).into_response())
    });
    to_response(answer, ErrorFormat::OpenAi, &request)
}

/// Renders a chat completion that was created with `store: true`; `None` for others.
fn stored_completion(run: &str, stored: &StoredRun) -> Option<Value> {
    let options = &stored.request.options;
    if options.get(&ChatField::Store) != Some(&json!(true)) {
        return None;
    }
    let answered = WholeReply { run, reply: &stored.reply, model: &stored.reply.model };
    let mut shown = chat::render_completion(&answered, stored.created_seconds);
    shown["metadata"] = options.get(&ChatField::Metadata).cloned().unwrap_or_else(|| json!({}));
    Some(shown)
}

/// Handles the listing of stored chat completions, the newest first.
pub(super) async fn list_completions(
    Extension(compat_state): Extension<CompatState>,
    Extension(caller): CallerExtension,
    Extension(RequestId(request)): RequestIdExtension,
    RawQuery(query): RawQuery,
) -> Response {
    to_response(
        read_completions_page(&compat_state, &caller, query.as_deref()).await,
        ErrorFormat::OpenAi,
        &request,
    )
}

async fn read_completions_page(
    compat_state: &CompatState,
    caller: &Caller,
    query: Option<&str>,
) -> Result<Response, CompatRefusal> {
    let query = ListQuery::read_known(query, &["after", "limit", "metadata[*]", "model", "order"])?;
    if query.get("order").is_some_and(|order| order != "desc") {
        return Err(FieldPath::ROOT.field("order").refuse("must be desc: the newest come first"));
    }
    let limit = query.page_limit(20, 100)?;
    let queries = &compat_state.gateway.queries;
    let tenant = caller.tenant.as_str();
    let graph = Some(compat_state.graph.graph_id(&caller.tenant).to_string());
    let filter = RunFilter { graph, status: Some("completed".to_owned()), ..RunFilter::default() };
    // The read models' cursor is the log position of a run's creation.
    let mut cursor = match query.get("after").and_then(|id| id.strip_prefix("chatcmpl-")) {
        Some(run) => {
            let row = queries.find_run(tenant, run).await.map_err(CompatRefusal::internal_error)?;
            row.map(|row| row.created_pos.to_string())
        }
        None => None,
    };
    let (mut items, mut scanned_runs) = (Vec::new(), 0);
    let has_more = loop {
        let rows =
            queries.list_runs(tenant, &filter, cursor.as_deref(), SCANNED_RUNS_PER_READ).await;
        let rows = rows.map_err(CompatRefusal::internal_error)?;
        scanned_runs += rows.items.len();
        for row in &rows.items {
            if let Some(stored) = read_run(compat_state, caller, &row.run).await? {
                // Filtered here: the listing of runs knows neither the model nor the metadata of a
                // call.
                let is_model = query.get("model").is_none_or(|model| model == stored.reply.model);
                let has_metadata = |shown: &Value| {
                    query
                        .bracketed_values("metadata")
                        .all(|(name, value)| shown["metadata"][name] == value)
                };
                let shown = stored_completion(&row.run, &stored).filter(|_| is_model);
                items.extend(shown.filter(has_metadata));
            }
        }
        cursor = rows.next_cursor;
        // A scan that ends early reports that there may be more.
        if items.len() > limit || cursor.is_none() || scanned_runs >= SCANNED_RUNS_LIMIT {
            break items.len() > limit || cursor.is_some();
        }
    };
    items.truncate(limit);
    Ok(Json(list_page(&items, has_more)).into_response())
}

#[cfg(test)]
mod tests {
    use super::ListQuery;

    #[test]
    fn a_parameter_may_have_parts_where_it_is_known() {
        let query = ListQuery::read_known(
            Some("metadata[a]=1&metadata%5Bb%5D=2&limit=3"),
            &["limit", "metadata[*]"],
        );
        let query = query.expect("both are known");
        let parts: Vec<_> = query.bracketed_values("metadata").collect();
        assert_eq!(parts, [("a", "1"), ("b", "2")]);
        for unknown in [
            "metadata=1",
            "metadata[]=1",
            "limit[a]=1",
            "metadatas[a]=1",
            "metadata[a=1",
            "other[a]=1",
        ] {
            assert!(
                ListQuery::read_known(Some(unknown), &["limit", "metadata[*]"]).is_err(),
                "{unknown}"
            );
        }
    }
}
