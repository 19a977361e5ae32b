//! Approvals: answer the questions that runs put to people.

use convergio_domain::id::{ApprovalId, RunId};
use convergio_domain::run::{AnswerApproval, Run, RunCommand, RunRejection};
use convergio_eventstore::CommitError;

use crate::caller::Caller;
use crate::payload::{REASON_CHARACTERS_LIMIT, seal_reason};
use crate::use_cases::UseCases;

/// Answer of a person to a question.
#[derive(Debug, Clone)]
pub struct NewApprovalAnswer {
    /// Id of the question.
    pub approval: ApprovalId,
    /// SHA-256 of the content that the person saw.
    pub content_hash: String,
    /// True to grant, false to deny.
    pub is_granted: bool,
    /// Reason in the person's words.
    pub reason: Option<String>,
}

impl UseCases<'_> {
    /// Answers a question of a run for one of the caller's roles. The same answer again changes
    /// nothing: it is recognised by its question, so that the command needs no request id.
    ///
    /// # Errors
    /// The question is not the caller's to answer, is answered otherwise, or the log does not take
    /// the commit.
    pub async fn answer_approval(
        self,
        caller: &Caller,
        run: RunId,
        answer: NewApprovalAnswer,
    ) -> Result<(), CommitError<RunRejection>> {
        let (reason, payloads) = seal_reason(answer.reason, REASON_CHARACTERS_LIMIT, 0);
        let answer = AnswerApproval {
            approval: answer.approval,
            content_hash: answer.content_hash,
            granted: answer.is_granted,
            reason,
            roles: caller.roles.clone(),
        };
        let command = |_: &_, _| (RunCommand::Answer(answer.clone()), payloads.clone());
        let (stream, context) = (caller.run_stream(run), self.decision_context(caller));
        self.repository.submit_command::<Run>(&stream, &context, command).await
    }
}
