//! Answers that are no objects: `Status`, with the codes, reasons and messages of a real server.

use serde_json::{Value, json};

use crate::kubernetes::Kind;

/// Why a request is not carried out.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) code: u16,
    reason: &'static str,
    message: String,
    details: Option<Value>,
}

impl Failure {
    pub(super) fn new(code: u16, message: impl Into<String>) -> Failure {
        let reason = match code {
            400 => "BadRequest",
            401 => "Unauthorized",
            403 => "Forbidden",
            404 => "NotFound",
            405 => "MethodNotAllowed",
            409 => "Conflict",
            410 => "Expired",
            413 => "RequestEntityTooLarge",
            415 => "UnsupportedMediaType",
            422 => "Invalid",
            429 => "TooManyRequests",
            500 => "InternalError",
            503 => "ServiceUnavailable",
            504 => "Timeout",
            _ => "",
        };
        Failure {
            code,
            reason,
            message: message.into(),
            details: None,
        }
    }

    fn about(mut self, kind: &Kind, name: &str) -> Failure {
        self.details = Some(json!({"name": name, "group": kind.group, "kind": kind.plural}));
        self
    }

    pub(super) fn no_such_path() -> Failure {
        Failure::new(404, "the server could not find the requested resource")
    }

    pub(super) fn not_found(kind: &Kind, name: &str) -> Failure {
        let message = format!("{} \"{name}\" not found", kind.resource());
        Failure::new(404, message).about(kind, name)
    }

    pub(super) fn exists(kind: &Kind, name: &str) -> Failure {
        let message = format!("{} \"{name}\" already exists", kind.resource());
        let failure = Failure::new(409, message).about(kind, name);
        Failure {
            reason: "AlreadyExists",
            ..failure
        }
    }

    pub(super) fn conflict(kind: &Kind, name: &str, why: &str) -> Failure {
        let resource = kind.resource();
        let message = format!("Operation cannot be fulfilled on {resource} \"{name}\": {why}");
        Failure::new(409, message).about(kind, name)
    }

    pub(super) fn invalid(kind: &Kind, name: &str, why: &str) -> Failure {
        let message = format!("{}.{} \"{name}\" is invalid: {why}", kind.name, kind.group);
        Failure::new(422, message).about(kind, name)
    }

    /// A version that was compacted away.
    pub(super) fn gone(asked: u64, oldest: u64) -> Failure {
        Failure::new(410, format!("too old resource version: {asked} ({oldest})"))
    }

    pub(super) fn status(&self) -> Value {
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code,
        });
        if let Some(details) = &self.details {
            status["details"] = details.clone();
        }
        status
    }
}
