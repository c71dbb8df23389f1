//! Errors by who has to act, and what the operator reads.
//!
//! An [`Error`] has a [`Class`] (what kind of action mends it, Lambda's `errorType`), a [`Code`] (what exactly happened,
//! stable for alarms), a message that names the field, host or label, and a hint. None of them ever holds a secret.

use std::fmt;

use lambda_runtime::Diagnostic;

/// The result of everything here that can fail.
pub type Result<T> = std::result::Result<T, Error>;

/// Who has to act, and whether trying again can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Class {
    /// The secret, the function or a permission must be changed by a person.
    Config,
    /// The labels of the secret do not allow this step.
    Stage,
    /// The service answered, and refused.
    Rejected(Which),
    /// Nobody answered, or not for now: the next try may succeed.
    Transient(Effect),
    /// A defect of this program.
    Internal,
}

/// Which credential the service refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The administrator's.
    Admin,
    /// The value labelled AWSCURRENT, and every older one that was tried.
    Current,
    /// The value labelled AWSPENDING.
    Pending,
}

/// Whether a failed step may have left something changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing was changed.
    None,
    /// A change was under way when the answer stayed out.
    Unknown,
}

impl Class {
    /// Lambda's `errorType`, on which alarms and runbooks may rely.
    #[must_use]
    pub fn error_type(self) -> &'static str {
        match self {
            Self::Config => "Rotation.Config",
            Self::Stage => "Rotation.Stage",
            Self::Rejected(_) => "Rotation.Rejected",
            Self::Transient(_) => "Rotation.Transient",
            Self::Internal => "Rotation.Internal",
        }
    }
}

macro_rules! codes {
    ($($name:ident = $text:literal, $meaning:literal, $remedy:literal;)*) => {
        /// What exactly happened: stable names, told apart by codes of the services and never by the text of a message.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum Code { $(#[doc = $meaning] $name,)* }

        impl Code {
            /// Every code, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The name in logs and messages.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// One sentence for the troubleshooting table of the README.
            #[must_use]
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$name => $meaning,)* }
            }

            /// What to do, where the error itself does not say it better.
            #[must_use]
            pub fn remedy(self) -> &'static str {
                match self { $(Self::$name => $remedy,)* }
            }
        }
    };
}

codes! {
    Event = "event", "The invocation is not a rotation event: a key is missing or empty, or the step is unknown.",
        "invoke with the keys Step, SecretId and ClientRequestToken, as Secrets Manager does";
    Kind = "kind", "No kind of credential matches the secret's `kind`, `engine` or tag `keywheel:kind`.",
        "name one of the kinds of the README's table";
    Value = "value", "The secret value cannot be read: binary, not JSON, or not a JSON object.",
        "store it as SecretString, a JSON object";
    Field = "field", "A field of the secret is missing, has the wrong type or is out of range.",
        "mend the field in the secret's value";
    Tampered = "tampered", "AWSPENDING differs from AWSCURRENT in a field that a rotation may not change.",
        "take AWSPENDING away, and rotate anew";
    Unchanged = "unchanged", "AWSPENDING holds the same credential as AWSCURRENT.",
        "take AWSPENDING away, and rotate anew";
    Environment = "environment", "An environment variable of the function has a value that cannot be used.",
        "mend the variable in the function's configuration";
    AccessDenied = "access-denied", "The function's role lacks a permission; the message names action and resource.",
        "allow the action for the function's role";
    Kms = "kms", "The KMS key of the secret cannot be used.",
        "check that the key is enabled, and allow its use for the function's role";
    Request = "request", "Secrets Manager refused a request as invalid.",
        "see the service's own sentence in the message";
    Database = "database", "The database named by the secret does not exist on the server.",
        "check field \"dbname\"";
    ReadOnly = "read-only", "The host is a read-only replica, or the server is in recovery.",
        "put the name of the writer into `host`";
    Privilege = "privilege", "The login may not change its own password, or may not do what the probe asks.",
        "grant what is missing";
    Admin = "admin", "The administrator's secret cannot be used: not allowed, missing, or for another server.",
        "check the secret named by `masterarn`";
    Pair = "pair", "The other user of an alternating pair cannot be made or is not ours to change.",
        "see the message; an administrator can mend it";
    Recipe = "recipe", "A recipe cannot be used: an unknown key, a template that finds nothing, or a class without what it needs.",
        "mend the key of the recipe that the message names";
    Answer = "answer", "The service's answer is not what the recipe expects; the message has status and place.",
        "compare the recipe, and the fields of the secret that it uses, with the service's documentation";
    Address = "address", "A URL may not be used: it is not https, or its address is a private one or a metadata service's.",
        "use the service's public https URL, or allow private addresses with field \"network\"";
    Identity = "identity", "The key works, and is somebody else's.",
        "put a key of the owner that the secret names into it, or mend the fields that say who that is";
    ByHand = "by-hand", "The service has no way to make such a key: a person has to, and has not yet.",
        "stage the new key as AWSPENDING; the message says where it is made, and how";
    KeyLimit = "key-limit", "The service holds as many keys as it allows, and one of them is not provably ours to delete.",
        "delete the key that the message names, if nothing uses it";
    RotationOff = "rotation-off", "Rotation is not enabled for the secret.",
        "enable it with `aws secretsmanager rotate-secret`";
    Token = "token", "The secret has no version with the token of this rotation.",
        "start a rotation with `aws secretsmanager rotate-secret`";
    NotPending = "not-pending", "The version of this rotation does not hold AWSPENDING.",
        "start a rotation with `aws secretsmanager rotate-secret`";
    NoValue = "no-value", "The pending version holds no value: createSecret has not succeeded for it.",
        "see the error of createSecret";
    NoCurrent = "no-current", "No version of the secret holds AWSCURRENT with a value.",
        "give the secret its first value with `aws secretsmanager put-secret-value`";
    WrongPassword = "wrong-password", "The server refused user name and password.",
        "check that the password in the secret is the one in force";
    NotPermitted = "not-permitted", "The server knows the login and does not let it in: locked, no LOGIN right, or no rule for this client.",
        "check that the login is not locked and may connect from the function";
    PasswordPolicy = "password-policy", "The server's password policy refused the new password.",
        "set PASSWORD_LENGTH and the EXCLUDE_… variables to what the policy wants, take AWSPENDING away, and rotate anew";
    Dns = "dns", "The host name does not resolve.",
        "check field \"host\", and DNS in the function's VPC";
    Refused = "refused", "The host answers, but nothing listens on the port.",
        "check fields \"host\" and \"port\", and that the server is up";
    Unreachable = "unreachable", "The connection could not be made, or broke.",
        "check security groups and routes from the function to the server, and that the server is up";
    Timeout = "timeout", "No answer in time.",
        "check security groups, routes and that the server is up; a function outside the VPC cannot reach a private address";
    TlsTrust = "tls-trust", "The server's certificate is not signed by a trusted authority.",
        "put the authority's certificate in PEM into `sslrootcert`, or into the file named by KEYWHEEL_CA_FILE";
    TlsName = "tls-name", "The server's certificate is not valid for the host name.",
        "put a name of the certificate into `host`; `\"sslmode\": \"verify-ca\"` gives up checking the name";
    TlsExpired = "tls-expired", "The server's certificate has expired or is not yet valid.",
        "renew the server's certificate; on RDS, choose a current certificate authority";
    TlsOff = "tls-off", "The server offers no TLS, and the secret does not allow plaintext.",
        "turn TLS on at the server; `\"sslmode\": \"disable\"` in the secret allows plaintext";
    Tls = "tls", "The TLS handshake failed for another reason.",
        "check that a server of that kind listens there, with TLS 1.2 or newer";
    TooManyConnections = "too-many-connections", "The server has no free connection for this login.",
        "close idle connections, or raise max_connections or the role's CONNECTION LIMIT";
    NotReady = "not-ready", "The server is starting up or shutting down.",
        "nothing, if it comes back: Secrets Manager tries again";
    Server = "server", "The server answered with an error that has no case of its own here; the message has its code.",
        "look the code up in the server's documentation; its log has the message";
    Limited = "limited", "The service limits the rate of requests.",
        "nothing, if it is rare; else spread the rotations over the day with a schedule window";
    Throttled = "throttled", "AWS limits the rate of requests.",
        "nothing, if it is rare; else spread the rotations over the day with a schedule window";
    Aws = "aws", "AWS failed or did not answer.",
        "a function in a VPC needs an interface endpoint for Secrets Manager that its security group may reach, or a NAT gateway";
    NotVisible = "not-visible", "A value that exists cannot be read yet.",
        "nothing: Secrets Manager tries again";
    Deadline = "deadline", "The function ran out of time.",
        "raise the function's Timeout, or look for what it waited for";
    Panic = "panic", "A defect of this program; the message has file and line.",
        "please report it; AWSCURRENT keeps working";
}

/// A failed step: class, code, message and hint. Holds no secret.
pub struct Error(Box<Inner>);

struct Inner {
    class: Class,
    code: Code,
    message: String,
    hint: Option<String>,
}

impl Error {
    /// An error of any class; the message names the field, host or label and has no full stop.
    pub fn new(class: Class, code: Code, message: impl Into<String>) -> Self {
        Self(Box::new(Inner { class, code, message: message.into(), hint: None }))
    }

    /// The secret, the function or a permission must be changed by a person.
    pub fn config(code: Code, message: impl Into<String>) -> Self {
        Self::new(Class::Config, code, message)
    }

    /// The labels of the secret do not allow this step.
    pub fn stage(code: Code, message: impl Into<String>) -> Self {
        Self::new(Class::Stage, code, message)
    }

    /// The service answered, and refused the credential.
    pub fn rejected(which: Which, code: Code, message: impl Into<String>) -> Self {
        Self::new(Class::Rejected(which), code, message)
    }

    /// Nobody answered, or not for now. The engine adds whether something may have changed.
    pub fn transient(code: Code, message: impl Into<String>) -> Self {
        Self::new(Class::Transient(Effect::None), code, message)
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Puts `context` before the message.
    #[must_use]
    pub fn context(mut self, context: &str) -> Self {
        self.0.message = format!("{context}: {}", self.0.message);
        self
    }

    /// Strikes `secret` out of the message: a service may repeat what it refuses.
    #[must_use]
    pub(crate) fn without(mut self, secret: &str) -> Self {
        if !secret.is_empty() {
            self.0.message = self.0.message.replace(secret, "…");
        }
        self
    }

    /// The same error seen as one of another class, e.g. a refusal of AWSCURRENT as one of AWSPENDING.
    #[must_use]
    pub fn reclassify(mut self, class: Class) -> Self {
        self.0.class = class;
        self
    }

    /// Records whether something may have been changed; only [`Class::Transient`] tells it.
    #[must_use]
    pub(crate) fn with_effect(mut self, effect: Effect) -> Self {
        if let Class::Transient(_) = self.0.class {
            self.0.class = Class::Transient(effect);
        }
        self
    }

    /// Who has to act.
    #[must_use]
    pub fn class(&self) -> Class {
        self.0.class
    }

    /// What exactly happened.
    #[must_use]
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// The message without code and hint.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// What to do about it.
    #[must_use]
    pub fn remedy(&self) -> &str {
        self.0.hint.as_deref().unwrap_or_else(|| self.0.code.remedy())
    }

    /// Adds a hint where there is none of its own yet.
    #[must_use]
    pub fn hint_if_none(self, hint: impl FnOnce() -> String) -> Self {
        if self.0.hint.is_none() { self.hint(hint()) } else { self }
    }

    /// Whether the service definitely refused the credential.
    #[must_use]
    pub fn is_rejected(&self) -> bool {
        matches!(self.0.class, Class::Rejected(_))
    }

    /// Whether nobody gave a definite answer.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self.0.class, Class::Transient(_))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}] {}", self.0.code.as_str(), self.0.message)?;
        match self.0.class {
            Class::Transient(Effect::None) => f.write_str("; nothing was changed")?,
            Class::Transient(Effect::Unknown) => {
                f.write_str("; something may have been changed, and the next try checks")?;
            }
            _ => {}
        }
        write!(f, "\nhint: {}", self.remedy())
    }
}

// The runtime prints errors by Debug: let it be what an operator can read.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {self}", self.0.class.error_type())
    }
}

impl std::error::Error for Error {}

impl From<Error> for Diagnostic {
    fn from(error: Error) -> Self {
        Self { error_type: error.class().error_type().to_owned(), error_message: error.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn diagnostic_has_type_code_message_effect_and_hint() {
        let error = Error::transient(Code::Dns, "`db` does not resolve").hint("check `host`");
        let error = error.with_effect(Effect::Unknown);
        let diagnostic = Diagnostic::from(error);
        assert_eq!(diagnostic.error_type, "Rotation.Transient");
        assert_eq!(
            diagnostic.error_message,
            "[dns] `db` does not resolve; something may have been changed, and the next try checks\nhint: check `host`"
        );
    }

    #[test]
    fn codes_are_unique() {
        let mut names: Vec<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Code::ALL.len());
    }
}
