//! Trace spans of effects, named by OpenTelemetry's semantic conventions for generative AI.
//!
//! Prompts and answers are not recorded; the run's id and the step lead to the log, which has them.

use convergio_domain::billing::Usage;
use convergio_domain::stream::StreamKey;
use tracing::field::Empty;
use tracing::{Span, info_span};

use crate::plan::{EffectLaunch, EffectOutcome, EffectResult, EffectWork};

/// Opens the span of an effect, from its launch to its result.
pub(super) fn effect_span(stream: &StreamKey, launch: &EffectLaunch) -> Span {
    let (run, step, attempt) = (stream.id, &launch.step, launch.attempt);
    match &launch.work {
        EffectWork::Tool { name, .. } => info_span!(
            "execute_tool",
            otel.name = format!("execute_tool {name}"),
            otel.status_code = Empty,
            error.type = Empty,
            gen_ai.operation.name = "execute_tool",
            gen_ai.tool.name = name,
            convergio.run.id = %run,
            convergio.step = %step,
            convergio.attempt = attempt,
        ),
        EffectWork::Child(child) => info_span!(
            "invoke_agent",
            otel.name = "invoke_agent",
            otel.status_code = Empty,
            error.type = Empty,
            gen_ai.operation.name = "invoke_agent",
            convergio.child.id = %child,
            convergio.run.id = %run,
            convergio.step = %step,
            convergio.attempt = attempt,
        ),
        EffectWork::Model(call) => info_span!(
            "chat",
            otel.name = format!("chat {}", call.model),
            otel.kind = "client",
            otel.status_code = Empty,
            error.type = Empty,
            gen_ai.operation.name = "chat",
            gen_ai.provider.name = call.provider.name(),
            gen_ai.request.model = call.model,
            gen_ai.response.model = Empty,
            gen_ai.response.finish_reasons = Empty,
            gen_ai.usage.input_tokens = Empty,
            gen_ai.usage.output_tokens = Empty,
            convergio.run.id = %run,
            convergio.step = %step,
            convergio.attempt = attempt,
        ),
    }
}

/// Records the result of an effect on its span.
pub(super) fn record_result(span: &Span, effect_result: &EffectResult) {
    if span.is_disabled() {
        return;
    }
    if let EffectOutcome::Failed(failure) = &effect_result.outcome {
        span.record("otel.status_code", "ERROR");
        span.record("error.type", failure.code.as_str());
    }
    if let Some(call) = &effect_result.call_report {
        span.record("gen_ai.response.model", call.model.as_str());
        span.record("gen_ai.response.finish_reasons", call.finish.as_deref());
        span.record("gen_ai.usage.input_tokens", call.usage.as_ref().map(Usage::tokens_in));
        span.record("gen_ai.usage.output_tokens", call.usage.as_ref().map(Usage::tokens_out));
    }
}
