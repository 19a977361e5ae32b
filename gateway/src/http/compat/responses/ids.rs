//! Ids of responses and items, which name the run and the part of its reply.

use uuid::Uuid;

/// Returns the id of a response.
pub(super) fn response_id(run: &str) -> String {
    format!("resp_{run}")
}

/// Returns the id of an item that is a part of a reply.
pub(super) fn part_item_id(prefix: &str, run: &str, place: usize) -> String {
    format!("{prefix}_{run}_{place}")
}

/// Returns the id of a carrier item that follows a part.
pub(super) fn fields_item_id(run: &str, place: usize) -> String {
    format!("rs_{run}_{place}_fields")
}

/// Returns the run of a response id.
pub(in super::super) fn run_of_response(id: &str) -> Option<&str> {
    id.strip_prefix("resp_").filter(|run| Uuid::try_parse(run).is_ok())
}

/// Parses an item id of ours into its run and part index; carrier items have no index.
pub(super) fn parse_item_id(id: &str) -> Option<(&str, Option<usize>)> {
    let (prefix, rest) = id.split_once('_')?;
    let (run, place) = rest.split_once('_')?;
    if !matches!(prefix, "msg" | "fc" | "rs") || Uuid::try_parse(run).is_err() {
        return None;
    }
    match place.strip_suffix("_fields") {
        Some(_) => Some((run, None)),
        None => Some((run, Some(place.parse().ok()?))),
    }
}

#[cfg(test)]
mod tests {
    use super::{fields_item_id, parse_item_id, part_item_id, response_id, run_of_response};

    const RUN: &str = "0193a1b2-0000-7000-8000-000000000001";

    #[test]
    fn an_id_leads_back() {
        assert_eq!(run_of_response(&response_id(RUN)), Some(RUN));
        assert_eq!(parse_item_id(&part_item_id("msg", RUN, 3)), Some((RUN, Some(3))));
        assert_eq!(parse_item_id(&fields_item_id(RUN, 3)), Some((RUN, None)));
        for other in ["msg_68a1b2c3", "rs_", "fc_x_1", "msg_", "", "item_1"] {
            assert_eq!(parse_item_id(other), None, "{other}");
        }
        assert_eq!(run_of_response("resp_1"), None);
    }
}
