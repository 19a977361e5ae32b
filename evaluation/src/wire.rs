//! Jobs and results as bytes between processes: `MessagePack`, which keeps integers and floats
//! apart.

use std::io::{Read, Write};
use std::sync::Arc;

use convergio_domain::expr::{ExprError, ExprScope, NodeView};
use convergio_domain::graph::Diagnostic;
use convergio_domain::graph::manifest::Graph;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::job::{EvaluationJob, JobResult, ParsedManifest};

/// Error of bytes that are no job or result.
pub(crate) type WireError = Box<dyn std::error::Error + Send + Sync>;

// These mirror the public types: what is sent must not change with them, and is written without a
// copy.
#[derive(Serialize)]
enum JobOut<'a> {
    Value { template: &'a Value, scope: ScopeOut<'a> },
    Texts { templates: &'a [String], scope: ScopeOut<'a> },
    Conditions { conditions: &'a [String], scope: ScopeOut<'a> },
    Check { schema: &'a Value, value: &'a Value },
    Manifest { text: &'a str },
}

#[derive(Serialize)]
struct ScopeOut<'a> {
    inputs: &'a Value,
    nodes: Vec<(&'a str, &'a str, Option<&'a Value>)>,
    item: Option<(&'a Value, u32)>,
}

impl<'a> ScopeOut<'a> {
    fn from_scope(scope: &'a ExprScope) -> Self {
        let nodes = scope.nodes.iter();
        let nodes = nodes.map(|(id, view)| (id.as_str(), view.status, view.output.as_deref()));
        let item = scope.item.as_ref().map(|(item, index)| (item, *index));
        Self { inputs: &scope.inputs, nodes: nodes.collect(), item }
    }
}

/// Serialises a job; the same bytes give the job its digest.
pub(crate) fn write_job(job: &EvaluationJob, to: &mut impl Write) -> Result<(), WireError> {
    let out = match job {
        EvaluationJob::Value { template, scope } => {
            JobOut::Value { template, scope: ScopeOut::from_scope(scope) }
        }
        EvaluationJob::Texts { templates, scope } => {
            JobOut::Texts { templates, scope: ScopeOut::from_scope(scope) }
        }
        EvaluationJob::Conditions { conditions, scope } => {
            JobOut::Conditions { conditions, scope: ScopeOut::from_scope(scope) }
        }
        EvaluationJob::Check { schema, value } => JobOut::Check { schema, value },
        EvaluationJob::Manifest { text } => JobOut::Manifest { text },
    };
    Ok(rmp_serde::encode::write_named(to, &out)?)
}

#[derive(Deserialize)]
enum JobIn {
    Value { template: Value, scope: ScopeIn },
    Texts { templates: Vec<String>, scope: ScopeIn },
    Conditions { conditions: Vec<String>, scope: ScopeIn },
    Check { schema: Value, value: Value },
    Manifest { text: String },
}

#[derive(Deserialize)]
struct ScopeIn {
    inputs: Value,
    nodes: Vec<(String, String, Option<Value>)>,
    item: Option<(Value, u32)>,
}

impl ScopeIn {
    fn into_scope(self) -> Result<ExprScope, WireError> {
        let mut scope =
            ExprScope { inputs: Arc::new(self.inputs), item: self.item, ..ExprScope::default() };
        for (id, status, output) in self.nodes {
            let view = NodeView { status: intern_status(&status), output: output.map(Arc::new) };
            scope.nodes.insert(id.parse()?, view);
        }
        Ok(scope)
    }
}

/// Interns a node's status as expressions see it.
fn intern_status(name: &str) -> &'static str {
    match name {
        "completed" => "completed",
        "failed" => "failed",
        "skipped" => "skipped",
        _ => "pending",
    }
}

/// Deserialises a job in the worker.
pub(crate) fn read_job(from: impl Read) -> Result<EvaluationJob, WireError> {
    Ok(match rmp_serde::from_read(from)? {
        JobIn::Value { template, scope } => {
            EvaluationJob::Value { template: Arc::new(template), scope: scope.into_scope()? }
        }
        JobIn::Texts { templates, scope } => {
            EvaluationJob::Texts { templates, scope: scope.into_scope()? }
        }
        JobIn::Conditions { conditions, scope } => {
            EvaluationJob::Conditions { conditions, scope: scope.into_scope()? }
        }
        JobIn::Check { schema, value } => {
            EvaluationJob::Check { schema: Arc::new(schema), value: Arc::new(value) }
        }
        JobIn::Manifest { text } => EvaluationJob::Manifest { text },
    })
}

#[derive(Serialize, Deserialize)]
enum AnswerWire {
    Value(Result<Value, ErrorWire>),
    Texts(Result<Vec<String>, ErrorWire>),
    Condition(Result<usize, ErrorWire>),
    Mistakes(Vec<String>),
    /// The graph as its canonical manifest.
    Manifest(Result<(Value, Vec<Diagnostic>), Vec<Diagnostic>>),
}

#[derive(Serialize, Deserialize)]
struct ErrorWire {
    message: String,
    line: Option<usize>,
}

impl From<ExprError> for ErrorWire {
    fn from(ExprError { message, line }: ExprError) -> Self {
        Self { message, line }
    }
}

impl From<ErrorWire> for ExprError {
    fn from(ErrorWire { message, line }: ErrorWire) -> Self {
        Self { message, line }
    }
}

/// Serialises a result in the worker.
pub(crate) fn write_answer(answer: JobResult) -> Result<Vec<u8>, WireError> {
    let wire = match answer {
        JobResult::Value(value) => AnswerWire::Value(value.map_err(ErrorWire::from)),
        JobResult::Texts(texts) => AnswerWire::Texts(texts.map_err(ErrorWire::from)),
        JobResult::Condition(number) => AnswerWire::Condition(number.map_err(ErrorWire::from)),
        JobResult::Mistakes(mistakes) => AnswerWire::Mistakes(mistakes),
        JobResult::Manifest(Ok(ParsedManifest { graph, warnings })) => {
            AnswerWire::Manifest(Ok((serde_json::to_value(&graph)?, warnings)))
        }
        JobResult::Manifest(Err(mistakes)) => AnswerWire::Manifest(Err(mistakes)),
    };
    Ok(rmp_serde::to_vec_named(&wire)?)
}

/// Deserialises a result in the pool.
pub(crate) fn read_answer(bytes: &[u8]) -> Result<JobResult, WireError> {
    Ok(match rmp_serde::from_slice(bytes)? {
        AnswerWire::Value(value) => JobResult::Value(value.map_err(ExprError::from)),
        AnswerWire::Texts(texts) => JobResult::Texts(texts.map_err(ExprError::from)),
        AnswerWire::Condition(number) => JobResult::Condition(number.map_err(ExprError::from)),
        AnswerWire::Mistakes(mistakes) => JobResult::Mistakes(mistakes),
        AnswerWire::Manifest(Ok((graph, warnings))) => {
            let graph: Graph = serde_json::from_value(graph)?;
            JobResult::Manifest(Ok(ParsedManifest { graph, warnings }))
        }
        AnswerWire::Manifest(Err(mistakes)) => JobResult::Manifest(Err(mistakes)),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use convergio_domain::expr::{ExprError, ExprScope, NodeView};
    use serde_json::{Value, json};

    use super::{read_answer, read_job, write_answer, write_job};
    use crate::job::{EvaluationJob, JobResult};

    /// Numbers at the edges of what JSON has here.
    fn numbers() -> Value {
        json!([0, -1, i64::MIN, u64::MAX, 1.0, -0.0, 0.1, 1e300, 5e-324, 0.30000000000000004])
    }

    #[test]
    fn jobs_and_answers_are_what_they_were() {
        let output = Some(Arc::new(json!({"a": [null, true, "x"], "n": numbers()})));
        let view = NodeView { status: "completed", output };
        let scope = ExprScope {
            inputs: Arc::new(numbers()),
            nodes: [("n".parse().expect("a node"), view)].into(),
            item: Some((numbers(), 7)),
        };
        let template = Arc::new(json!({"x": "{{ inputs[8] }}", "n": numbers()}));
        let job = EvaluationJob::Value { template, scope };
        let mut bytes = Vec::new();
        write_job(&job, &mut bytes).expect("written");
        let read = read_job(&bytes[..]).expect("read");
        assert_eq!(format!("{read:?}"), format!("{job:?}"));
        assert_eq!(read.job_digest(), job.job_digest());
        let error = ExprError { message: "no".into(), line: Some(3) };
        for answer in [JobResult::Value(Ok(numbers())), JobResult::Value(Err(error))] {
            let bytes = write_answer(answer.clone()).expect("written");
            assert_eq!(read_answer(&bytes).expect("read"), answer);
        }
    }
}
