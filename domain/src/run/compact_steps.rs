//! Compact encoding of finished steps, a few bytes each; they are most of a long run's state.
//!
//! ```text
//! for each node: length of its name · name · number of its steps · its steps in order
//! a step: flags: 1 byte · item · [attempt] · [failures] · [output: seq · index] · [case]
//! ```
//!
//! Numbers are LEB128. Items and the sequence numbers of outputs are deltas to the step before.

use std::collections::BTreeMap;

use serde::Serializer;

use super::step::{RunStep, StepStatus};
use crate::id::{NodeId, StepId};
use crate::payload::PayloadRef;
use crate::stream::Seq;

/// Flag of a skipped step; without it the step completed.
const IS_SKIPPED: u8 = 1;
const IS_ITEM: u8 = 2;
/// Flag of an attempt other than 1, which is by far the most common.
const HAS_TRY: u8 = 4;
const HAS_FAILURES: u8 = 8;
const HAS_OUTPUT: u8 = 16;
const HAS_CASE: u8 = 32;

/// True if the compact form holds everything about the step.
fn is_compactable(step: &RunStep) -> bool {
    // Destructured without `..`: a new field of the step does not compile until it is considered
    // here.
    let RunStep {
        status,
        attempt: _,
        output: _,
        case: _,
        map,
        call,
        failures: _,
        error,
        avoid,
        turns,
        child,
        awaits,
        lost_call,
        fingerprint: _,
    } = step;
    matches!(status, StepStatus::Completed | StepStatus::Skipped)
        && (map.is_none() && call.is_none() && error.is_none() && avoid.is_empty())
        && (turns.is_none() && child.is_none() && awaits.is_empty() && lost_call.is_none())
}

/// Serialises the other steps, which stay in the JSON part of a snapshot.
pub(super) fn serialize_other_steps<S: Serializer>(
    steps: &BTreeMap<StepId, RunStep>,
    to: S,
) -> Result<S::Ok, S::Error> {
    to.collect_map(steps.iter().filter(|(_, step)| !is_compactable(step)))
}

/// The step before, from which deltas are taken.
#[derive(Default)]
struct PreviousStep {
    item: u32,
    output: u64,
}

/// Appends all steps that have a compact form.
pub(super) fn write_compact_steps(steps: &BTreeMap<StepId, RunStep>, bytes: &mut Vec<u8>) {
    // Steps are sorted by node, so each node's name is written once.
    let mut packed = steps.iter().filter(|(_, step)| is_compactable(step)).peekable();
    while let Some((first, _)) = packed.peek() {
        let node = first.node.clone();
        let name = node.as_str();
        write_varint(bytes, name.len() as u64);
        bytes.extend_from_slice(name.as_bytes());
        let (mut count, mut node_bytes, mut previous) = (0, Vec::new(), PreviousStep::default());
        while let Some((id, step)) = packed.next_if(|(id, _)| id.node == node) {
            write_compact_step(&mut node_bytes, &mut previous, id.item, step);
            count += 1;
        }
        write_varint(bytes, count);
        bytes.append(&mut node_bytes);
    }
}

/// Appends one step; `item` is its index in a map.
fn write_compact_step(
    bytes: &mut Vec<u8>,
    previous: &mut PreviousStep,
    item: Option<u32>,
    step: &RunStep,
) {
    let flag = |is: bool, flag: u8| if is { flag } else { 0 };
    bytes.push(
        flag(step.status == StepStatus::Skipped, IS_SKIPPED)
            | flag(item.is_some(), IS_ITEM)
            | flag(step.attempt != 1, HAS_TRY)
            | flag(step.failures != 0, HAS_FAILURES)
            | flag(step.output.is_some(), HAS_OUTPUT)
            | flag(step.case.is_some(), HAS_CASE),
    );
    if let Some(item) = item {
        write_varint(bytes, u64::from(item.wrapping_sub(previous.item)));
        previous.item = item;
    }
    if step.attempt != 1 {
        write_varint(bytes, u64::from(step.attempt));
    }
    if step.failures != 0 {
        write_varint(bytes, u64::from(step.failures));
    }
    if let Some(PayloadRef { seq, index }) = step.output {
        // Zigzag: the sign is the lowest bit, since a later item may have an earlier output.
        let difference = seq.0.wrapping_sub(previous.output).cast_signed();
        write_varint(bytes, ((difference << 1) ^ (difference >> 63)).cast_unsigned());
        write_varint(bytes, u64::from(index));
        previous.output = seq.0;
    }
    if let Some(case) = step.case {
        write_varint(bytes, u64::from(case));
    }
}

/// Decodes the steps that [`write_compact_steps`] appended; `None` for other bytes.
pub(super) fn read_compact_steps(mut bytes: &[u8]) -> Option<BTreeMap<StepId, RunStep>> {
    let mut steps = Vec::new();
    while !bytes.is_empty() {
        let length = usize::try_from(read_varint(&mut bytes)?).ok()?;
        let (name, rest) = bytes.split_at_checked(length)?;
        let node: NodeId = std::str::from_utf8(name).ok()?.parse().ok()?;
        bytes = rest;
        let count = usize::try_from(read_varint(&mut bytes)?).ok()?;
        // Each step takes at least one byte, so corrupt input cannot reserve more than its own
        // length.
        steps.reserve(count.min(bytes.len()));
        let mut previous = PreviousStep::default();
        for _ in 0..count {
            let (item, step) = read_compact_step(&mut bytes, &mut previous)?;
            steps.push((StepId { node: node.clone(), item }, step));
        }
    }
    Some(steps.into_iter().collect())
}

/// Decodes one step and its index in a map.
fn read_compact_step(
    bytes: &mut &[u8],
    previous: &mut PreviousStep,
) -> Option<(Option<u32>, RunStep)> {
    let flags = *bytes.split_off_first()?;
    let has = |flag: u8| flags & flag != 0;
    let number = |bytes: &mut &[u8]| u32::try_from(read_varint(bytes)?).ok();
    let status = if has(IS_SKIPPED) { StepStatus::Skipped } else { StepStatus::Completed };
    let mut step = RunStep::new(status);
    let mut item = None;
    if has(IS_ITEM) {
        previous.item = previous.item.wrapping_add(number(bytes)?);
        item = Some(previous.item);
    }
    step.attempt = if has(HAS_TRY) { number(bytes)? } else { 1 };
    step.failures = if has(HAS_FAILURES) { number(bytes)? } else { 0 };
    if has(HAS_OUTPUT) {
        let coded = read_varint(bytes)?;
        let difference = (coded >> 1) ^ (coded & 1).wrapping_neg();
        previous.output = previous.output.wrapping_add(difference);
        let index = u16::try_from(read_varint(bytes)?).ok()?;
        step.output = Some(PayloadRef { seq: Seq(previous.output), index });
    }
    if has(HAS_CASE) {
        step.case = Some(number(bytes)?);
    }
    Some((item, step))
}

/// Appends a number as LEB128.
fn write_varint(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    bytes.push((number & 0x7f) as u8);
}

/// Decodes a LEB128 number; `None` if it is cut off or exceeds 64 bits.
fn read_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.split_off_first()?;
        number |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}
