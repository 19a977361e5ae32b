//! Meters the bytes that the filters of one rendering read and return, before each does its work.
//!
//! Each filter is charged for the size of its input and of its result. A rendering within an
//! allowance has a small limit; one that exceeds it is repeated in a worker process, with the
//! limits of this file.

use minijinja::value::ValueKind;
use minijinja::{Environment, Error, ErrorKind, State, Value};

use super::weight::NODE_BYTES;

/// Most bytes that the filters of one rendering return together.
const YIELD_LIMIT: u64 = 64 << 20;
/// Most bytes that the filters of one rendering read together.
const TOUCH_LIMIT: u64 = 8 << 30;
/// Global variable that holds an environment's filter limit. The space keeps templates from naming
/// it.
const LIMIT_VARIABLE: &str = "filter bytes";

/// Bytes that the filters of one rendering may still read and return.
#[derive(Debug, Clone, Copy)]
struct FilterMeter {
    remaining_yield: u64,
    remaining_touch: u64,
    is_in_place: bool,
}

impl FilterMeter {
    fn with_limit(limit: Option<u64>) -> Self {
        match limit {
            Some(limit) => {
                Self { remaining_yield: limit, remaining_touch: limit, is_in_place: true }
            }
            None => Self {
                remaining_yield: YIELD_LIMIT,
                remaining_touch: TOUCH_LIMIT,
                is_in_place: false,
            },
        }
    }

    fn charge_bytes(&mut self, touches: u64, yields: u64) -> Result<(), Error> {
        match (self.remaining_touch.checked_sub(touches), self.remaining_yield.checked_sub(yields))
        {
            (Some(touches), Some(yields)) => {
                (self.remaining_touch, self.remaining_yield) = (touches, yields);
                Ok(())
            }
            // Reported as fuel, which the renderer takes for an exhausted allowance, not for an
            // error of the template.
            _ if self.is_in_place => Err(Error::from(ErrorKind::OutOfFuel)),
            (None, _) => Err(limit_exceeded("go over", TOUCH_LIMIT)),
            (_, None) => Err(limit_exceeded("yield", YIELD_LIMIT)),
        }
    }
}

/// Limits the filters of an environment to this many bytes in one rendering.
pub(super) fn limit_filters(environment: &mut Environment<'_>, bytes: u64) {
    environment.add_global(LIMIT_VARIABLE, bytes);
}

fn limit_exceeded(what: &str, limit: u64) -> Error {
    let message = format!("the filters {what} more than {limit} bytes");
    Error::new(ErrorKind::InvalidOperation, message)
}

/// Returns the meter of this rendering. It lives in minijinja's state, of which each rendering has
/// its own.
fn filter_meter<'a>(state: &'a mut State<'_, '_>) -> &'a mut FilterMeter {
    if state.get_extension::<FilterMeter>().is_none() {
        let limit = state.lookup(LIMIT_VARIABLE).and_then(|limit| u64::try_from(limit).ok());
        return state.get_or_insert_extension(FilterMeter::with_limit(limit));
    }
    state.get_or_insert_extension_with(|| FilterMeter::with_limit(None))
}

/// Charges for the bytes that a filter is about to read and to return.
pub(super) fn charge_filter(
    state: &mut State<'_, '_>,
    touches: usize,
    yields: usize,
) -> Result<(), Error> {
    filter_meter(state).charge_bytes(touches as u64, yields as u64)
}

/// Charges for reading the whole of a value `times` times, and returns its size in bytes. Measuring
/// stops where the meter would run out.
pub(super) fn charge_value(
    state: &mut State<'_, '_>,
    value: &Value,
    times: u64,
) -> Result<u64, Error> {
    let meter = filter_meter(state);
    let mut size = ValueSize { bytes: 0, limit: meter.remaining_touch };
    size.add_value(value);
    meter.charge_bytes(size.bytes.saturating_mul(times), 0)?;
    Ok(size.bytes)
}

/// How often a filter reads its list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ListAccess {
    /// Reads the length or an end of it.
    Glance,
    /// Reads it once.
    Once,
    /// Sorts it: once for each halving of its length.
    Sort,
}

/// Charges for a list filter: it returns at most as many items as the list has, each with the
/// filter's arguments.
pub(super) fn charge_list(
    state: &mut State<'_, '_>,
    list: &Value,
    arguments: &[Value],
    passage: ListAccess,
) -> Result<(), Error> {
    let length = list.len().map(|items| items as u64);
    // The length of a text counts characters, and so reads it all.
    let is_known = length.is_some() && list.kind() != ValueKind::String;
    if passage == ListAccess::Glance && is_known {
        return charge_filter(state, NODE_BYTES as usize, 0);
    }
    let times = match passage {
        ListAccess::Sort => u64::from(length.unwrap_or(u64::MAX).max(2).ilog2()) + 1,
        ListAccess::Glance | ListAccess::Once => 1,
    };
    let bytes = charge_value(state, list, times)?;
    let mut each = NODE_BYTES;
    for argument in arguments {
        each += charge_value(state, argument, 1)?;
    }
    let items = length.unwrap_or(bytes / NODE_BYTES).saturating_add(1);
    let yields = items.saturating_mul(each);
    filter_meter(state).charge_bytes(yields, yields)
}

/// Size of a value in bytes; measuring stops above `limit`.
struct ValueSize {
    bytes: u64,
    limit: u64,
}

impl ValueSize {
    fn is_over(&self) -> bool {
        self.bytes > self.limit
    }

    fn add_value(&mut self, value: &Value) {
        self.bytes = self.bytes.saturating_add(NODE_BYTES);
        if let Some(text) = value.as_str() {
            self.bytes = self.bytes.saturating_add(text.len() as u64);
            return;
        }
        let is_map = match value.kind() {
            ValueKind::Map => true,
            ValueKind::Seq | ValueKind::Iterable => false,
            _ => return,
        };
        let Ok(items) = value.try_iter() else { return };
        for item in items {
            if self.is_over() {
                return;
            }
            self.add_value(&item);
            if let Some(field) = is_map.then(|| value.get_item(&item).ok()).flatten() {
                self.add_value(&field);
            }
        }
    }
}
