//! Conversion of read-model rows and log records to wire types.

use convergio_domain::money::Money;
use convergio_domain::time::Timestamp;
use convergio_eventstore::Record;
use convergio_projections::{
    ApprovalRow, AuditRow, BalanceRow, GraphRow, LedgerRow, RunRow, StepRow, UsageRow,
};
use convergio_schemas::wire::{
    ApprovalView, AuditEntry, Balance, ChildRun, EventEnvelope, ForkOrigin, GraphSummary,
    LedgerEntry, ModelView, ParentRun, PayloadView, RunError, RunImport, RunView, StepView,
    UsageLine, UsageSummary,
};
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Formats milliseconds since the epoch as RFC 3339 in UTC; empty if out of range.
pub(crate) fn format_rfc3339(at_ms: i64) -> String {
    let nanos = i128::from(at_ms) * 1_000_000;
    // `time` takes nanoseconds as `i128`, so the product cannot overflow.
    let date = OffsetDateTime::from_unix_timestamp_nanos(nanos).ok();
    date.and_then(|date| date.format(&Rfc3339).ok()).unwrap_or_default()
}

/// Counts are `INTEGER` in the read models; they are never negative.
fn to_unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// Formats a scaled integer as a decimal. Amounts are text in the read models, because they exceed
/// 64 bits.
fn to_decimal(scaled: &str) -> String {
    Money::from_scaled(scaled.parse().unwrap_or(0)).to_string()
}

pub(crate) fn to_graph_summary(row: GraphRow) -> GraphSummary {
    GraphSummary {
        id: row.graph,
        name: row.name,
        version: row.version,
        nodes: to_unsigned(row.nodes),
        registered_at: format_rfc3339(row.registered_ms),
    }
}

fn to_run_error(
    code: Option<String>,
    message: Option<String>,
    step: Option<String>,
) -> Option<RunError> {
    Some(RunError { code: code?, message: message.unwrap_or_default(), detail: None, step })
}

/// Converts the row of a run that another run started.
pub(crate) fn to_child_run(row: RunRow) -> ChildRun {
    ChildRun {
        run_id: row.run,
        step: row.parent_step.unwrap_or_default(),
        status: row.status,
        graph_id: row.graph,
        graph_name: row.name.unwrap_or_default(),
    }
}

pub(crate) fn to_run_view(row: RunRow) -> RunView {
    RunView {
        id: row.run,
        graph_id: row.graph,
        graph_name: row.name.unwrap_or_default(),
        version: row.version,
        status: row.status,
        forked_from: row.forked_from.map(|run_id| {
            let seq = row.forked_seq.map_or(0, to_unsigned);
            ForkOrigin { run_id, seq }
        }),
        imported: row.imported_by.zip(row.imported_file).map(|(by, file_hash)| RunImport {
            by,
            at: row.imported_ms.map(format_rfc3339).unwrap_or_default(),
            file_hash,
            signer: row.imported_signer,
        }),
        parent: row.parent.zip(row.parent_step).map(|(run_id, step)| ParentRun { run_id, step }),
        actor: row.actor,
        created_at: format_rfc3339(row.created_ms),
        ended_at: row.ended_ms.map(format_rfc3339),
        steps_done: to_unsigned(row.steps_done),
        steps_abandoned: to_unsigned(row.steps_abandoned),
        steps_total: to_unsigned(row.steps_total),
        usage: UsageSummary {
            tokens_in: to_unsigned(row.tokens_in),
            tokens_out: to_unsigned(row.tokens_out),
            cost: to_decimal(&row.cost),
            unpriced_calls: to_unsigned(row.unpriced),
        },
        error: to_run_error(row.error_code, row.error_message, row.error_step),
        output: None,
        steps: Vec::new(),
        children: Vec::new(),
        children_total: 0,
        seq: to_unsigned(row.seq),
    }
}

pub(crate) fn to_step_view(row: StepRow) -> StepView {
    // Both times exist only for an ended step.
    let duration_ms = row.started_ms.zip(row.ended_ms).map(|(from, to)| to_unsigned(to - from));
    let model = row.provider.zip(row.model);
    StepView {
        id: row.step,
        node: row.node,
        item: u32::try_from(row.item).ok(),
        kind: row.kind,
        status: row.status,
        attempt: u32::try_from(row.attempt).unwrap_or(0),
        duration_ms,
        model: model.map(|(provider, name)| ModelView { provider, name }),
        usage: UsageSummary {
            tokens_in: to_unsigned(row.tokens_in),
            tokens_out: to_unsigned(row.tokens_out),
            cost: to_decimal(&row.cost),
            unpriced_calls: 0,
        },
        error: to_run_error(row.error_code, row.error_message, None),
        is_inherited: false,
    }
}

pub(crate) fn to_usage_line(row: UsageRow) -> UsageLine {
    UsageLine {
        usage_id: row.usage_id,
        run_id: row.run,
        step: row.step,
        attempt: u32::try_from(row.attempt).unwrap_or(0),
        meter: row.meter,
        quantity: to_unsigned(row.quantity),
        provider: row.provider,
        model: row.model,
        confirmed: row.confirmed != 0,
        price: row.price,
        currency: row.currency,
        amount: row.amount.as_deref().map(to_decimal),
        at: format_rfc3339(row.at_ms),
        event_id: row.event,
    }
}

pub(crate) fn to_ledger_entry(row: LedgerRow) -> LedgerEntry {
    LedgerEntry {
        id: row.entry,
        run_id: row.run,
        debit: row.debit,
        credit: row.credit,
        currency: row.currency,
        amount: to_decimal(&row.amount),
        at: format_rfc3339(row.at_ms),
    }
}

pub(crate) fn to_balance(row: BalanceRow) -> Balance {
    Balance { account: row.account, currency: row.currency, amount: to_decimal(&row.amount) }
}

pub(crate) fn to_audit_entry(row: AuditRow) -> AuditEntry {
    AuditEntry {
        event_id: row.event,
        stream: row.stream,
        seq: to_unsigned(row.seq),
        at: format_rfc3339(row.at_ms),
        actor: row.actor,
        kind: row.kind,
        summary: serde_json::from_str(&row.summary).unwrap_or(Value::Null),
        hash: row.hash,
    }
}

pub(crate) fn to_approval_view(row: ApprovalRow) -> ApprovalView {
    ApprovalView {
        id: row.approval,
        run_id: row.run,
        step: row.step,
        role: row.role,
        state: row.state,
        content_hash: row.content_hash,
        content: None,
        asked_at: format_rfc3339(row.asked_ms),
        expires_at: row.expires_ms.map(format_rfc3339),
        answered_by: row.answered_by,
        reason: row.reason,
    }
}

/// Returns the events of a record, each in its wire envelope. The record's payloads are on the
/// first one.
pub(crate) fn to_event_envelopes(record: &Record) -> Vec<EventEnvelope> {
    let events = record.recorded_events().enumerate();
    let envelope = |(index, recorded): (usize, convergio_domain::decider::RecordedEvent<'_>)| {
        // `data` of the envelope is the event's own serialised form.
        let mut event_json = serde_json::to_value(recorded.event).unwrap_or_default();
        EventEnvelope {
            id: record.event_id(index).to_string(),
            tenant: record.stream.tenant.to_string(),
            stream: record.stream.stream_name(),
            seq: recorded.seq.0,
            position: record.position.0,
            kind: recorded.event.type_name().to_owned(),
            time: format_timestamp(recorded.time),
            recorded_at: format_timestamp(record.recorded_at),
            actor: record.body.actor.to_string(),
            data: event_json["data"].take(),
            // Payloads belong to the record and not to one of its events.
            payloads: if index == 0 { to_payload_views(record) } else { Vec::new() },
        }
    };
    events.map(envelope).collect()
}

fn format_timestamp(at: Timestamp) -> String {
    format_rfc3339(at.0)
}

fn to_payload_views(record: &Record) -> Vec<PayloadView> {
    let metas = record.body.payloads.iter().enumerate();
    metas
        .map(|(index, meta)| PayloadView {
            // The reference that other endpoints take: first event of the record, and the payload's
            // index.
            reference: format!("{}.{index}", record.first_seq()),
            commitment: meta.commitment.clone(),
            bytes: meta.bytes,
            media_type: meta.media_type.clone(),
            purpose: serde_json::to_value(meta.purpose)
                .ok()
                .and_then(|purpose| purpose.as_str().map(str::to_owned))
                .unwrap_or_default(),
            content: None,
        })
        .collect()
}
