//! The invocation, parsed into types: nothing is stringly after this file.

use std::fmt;

use aws_lambda_events::event::secretsmanager::SecretsManagerSecretRotationEvent;
use serde_json::Value;

use crate::error::{Code, Error, Result};
use crate::secret::SecretText;

/// One of the four steps in which Secrets Manager calls a rotation function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Make the new credential and stage it as AWSPENDING.
    Create,
    /// Make the service accept it.
    Set,
    /// Prove it.
    Test,
    /// Move AWSCURRENT to it.
    Finish,
}

impl Step {
    /// In the order in which they are called.
    pub const ALL: [Self; 4] = [Self::Create, Self::Set, Self::Test, Self::Finish];

    /// The spelling of the payload.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "createSecret",
            Self::Set => "setSecret",
            Self::Test => "testSecret",
            Self::Finish => "finishSecret",
        }
    }

    /// Also the spelling of AWS's user guide, `create_secret`.
    fn parse(text: &str) -> Option<Self> {
        match text {
            "createSecret" | "create_secret" => Some(Self::Create),
            "setSecret" | "set_secret" => Some(Self::Set),
            "testSecret" | "test_secret" => Some(Self::Test),
            "finishSecret" | "finish_secret" => Some(Self::Finish),
            _ => None,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A rotation event.
pub struct Event {
    /// Which of the four steps to run.
    pub step: Step,
    /// ARN or name of the secret.
    pub secret_id: String,
    /// The `ClientRequestToken`: the id of the version that this rotation makes.
    pub token: String,
    /// Must go into `PutSecretValue` when the function acts through an assumed role or across accounts; a credential.
    pub rotation_token: Option<SecretText>,
}

impl Event {
    /// Parses the payload of an invocation.
    ///
    /// # Errors
    /// Config, when a key is missing, empty or not a string, or the step is unknown. The message names the key.
    pub fn parse(payload: Value) -> Result<Self> {
        if !payload.is_object() {
            return Err(Error::config(Code::Event, "the payload is not a JSON object").hint(EXPECTED));
        }
        for key in ["Step", "SecretId", "ClientRequestToken"] {
            match payload.get(key) {
                Some(Value::String(text)) if !text.is_empty() => {}
                Some(Value::String(_)) => return Err(bad_key(key, "is empty")),
                Some(_) => return Err(bad_key(key, "is not a string")),
                None => return Err(bad_key(key, "is missing")),
            }
        }
        let rotation_token = match payload.get("RotationToken") {
            Some(Value::String(text)) => Some(SecretText::from(text.clone())),
            Some(Value::Null) | None => None,
            Some(_) => return Err(bad_key("RotationToken", "is not a string")),
        };
        let event: SecretsManagerSecretRotationEvent = serde_json::from_value(payload)
            .map_err(|_| Error::config(Code::Event, "the payload is not a rotation event").hint(EXPECTED))?;
        let step = Step::parse(&event.step).ok_or_else(|| {
            // Quoted and cut short: the text is the caller's and ends up in a log line.
            let shown: String = event.step.chars().take(40).collect();
            Error::config(Code::Event, format!("unknown `Step` {shown:?}"))
                .hint("one of createSecret, setSecret, testSecret, finishSecret")
        })?;
        Ok(Self { step, secret_id: event.secret_id, token: event.client_request_token, rotation_token })
    }
}

const EXPECTED: &str =
    r#"{"Step": "createSecret", "SecretId": "arn:…", "ClientRequestToken": "…"}, as Secrets Manager sends it"#;

fn bad_key(key: &str, what: &str) -> Error {
    Error::config(Code::Event, format!("`{key}` {what}")).hint(EXPECTED)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn event(step: &str) -> Value {
        json!({"Step": step, "SecretId": "name", "ClientRequestToken": "token"})
    }

    fn message(payload: Value) -> String {
        match Event::parse(payload) {
            Ok(_) => panic!("accepted"),
            Err(error) => format!("{error:?}"),
        }
    }

    #[test]
    fn both_spellings_of_each_step() {
        for (camel, snake) in [
            ("createSecret", "create_secret"),
            ("setSecret", "set_secret"),
            ("testSecret", "test_secret"),
            ("finishSecret", "finish_secret"),
        ] {
            for spelling in [camel, snake] {
                let parsed = Event::parse(event(spelling)).unwrap();
                assert_eq!(parsed.step.as_str(), camel);
            }
        }
    }

    #[test]
    fn bad_events_name_the_key_and_the_remedy() {
        for key in ["Step", "SecretId", "ClientRequestToken"] {
            for (value, what) in [(json!(""), "is empty"), (json!(7), "is not a string")] {
                let mut payload = event("createSecret");
                payload[key] = value;
                let text = message(payload);
                assert!(text.contains(&format!("`{key}` {what}")) && text.contains("hint:"), "{text}");
            }
            let mut payload = event("createSecret");
            payload.as_object_mut().unwrap().remove(key);
            let text = message(payload);
            assert!(text.starts_with("Rotation.Config") && text.contains(&format!("`{key}` is missing")), "{text}");
        }
        assert!(message(event("CreateSecret")).contains("unknown `Step` \"CreateSecret\""));
        assert!(message(event("a\nb")).contains(r#""a\nb""#));
        assert!(message(json!([])).contains("not a JSON object"));
    }

    #[test]
    fn rotation_token_is_kept() {
        let mut payload = event("createSecret");
        payload["RotationToken"] = json!("marked-token");
        let parsed = Event::parse(payload).unwrap();
        assert_eq!(parsed.rotation_token.unwrap().expose(), "marked-token");
        let mut payload = event("createSecret");
        payload["RotationToken"] = json!(["marked-token"]);
        let text = message(payload);
        assert!(text.contains("`RotationToken`") && !text.contains("marked-token"), "{text}");
    }
}
