//! RESP, the protocol of Redis and Valkey, as far as signing in and ACLs need it. Written here because the client library takes
//! no TLS settings but its own, and trust is one thing in the whole function.

use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::error::{Code, Error, Result, Which};
use crate::wire::{self, Place, Stream};

/// For each command.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
/// Nothing that is asked here is answered with more.
const LONGEST_ANSWER: usize = 1 << 20;
/// The usual port.
pub(crate) const PORT: u16 = 6379;

/// A connection. Dropping it breaks it.
pub(crate) struct Session {
    stream: BufReader<Box<dyn Stream>>,
    place: String,
}

/// What a server answers.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    Text(String),
    List(Vec<Reply>),
    Nothing,
}

impl Reply {
    /// The text; of anything else none.
    pub(crate) fn text(&self) -> &str {
        if let Self::Text(text) = self { text } else { "" }
    }

    /// The items of a list; of anything else none.
    pub(crate) fn items(&self) -> &[Self] {
        if let Self::List(items) = self { items } else { &[] }
    }
}

/// Why a command failed.
pub(crate) enum Failure {
    /// The server said so, with this code: the first word of its refusal. The rest may be anything.
    Code(String),
    /// There was no answer.
    Other(Error),
}

impl Session {
    /// Connects, with TLS as the place asks for it.
    ///
    /// # Errors
    /// Transient, when there is no way to it (Dns, Refused, Unreachable, Timeout), or what is there does not speak as it should.
    pub(crate) async fn open(at: &Place<'_>) -> Result<Self> {
        Ok(Self { stream: BufReader::new(wire::open(at).await?), place: at.name() })
    }

    /// Host and port, for messages.
    pub(crate) fn place(&self) -> &str {
        &self.place
    }

    /// Signs in. `which` is the credential that a refusal is about.
    ///
    /// # Errors
    /// Rejected, when the server refuses; Transient, when it cannot say.
    pub(crate) async fn sign_in(&mut self, user: &str, password: &str, which: Which) -> Result<()> {
        let place = self.place.clone();
        match self.run(&["AUTH", user, password]).await {
            Ok(_) => Ok(()),
            Err(Failure::Code(code)) if code == "WRONGPASS" => {
                let message = format!("{place} refuses user {user:?} and its password");
                Err(Error::rejected(which, Code::WrongPassword, message).hint(
                    "check that this server has the user, switched on, and that nobody has set its passwords meanwhile",
                ))
            }
            Err(failure) => Err(self.explain(failure, "AUTH")),
        }
    }

    /// Runs a command.
    ///
    /// # Errors
    /// [`Failure`], which the caller words.
    pub(crate) async fn run(&mut self, words: &[&str]) -> std::result::Result<Reply, Failure> {
        let mut command = Vec::with_capacity(1024);
        for (index, word) in words.iter().enumerate() {
            if index == 0 {
                command.extend(format!("*{}\r\n", words.len()).bytes());
            }
            command.extend(format!("${}\r\n", word.len()).bytes());
            command.extend(word.bytes().chain(*b"\r\n"));
        }
        let command = Zeroizing::new(command);
        let place = &self.place;
        // There is a way to it, so that it says nothing is the server's failure and not the route's.
        let silent = |what: String| {
            Error::transient(Code::Server, format!("{place} {what}")).hint(
                "check fields \"port\" and \"sslmode\"; nothing, if it is failing over: Secrets Manager tries again",
            )
        };
        let stream = &mut self.stream;
        let talk = async {
            stream.write_all(&command).await?;
            stream.flush().await?;
            let mut left = LONGEST_ANSWER;
            read(stream, &mut left, 0).await
        };
        match timeout(ANSWER_WITHIN, talk).await {
            Ok(Ok(Ok(reply))) => Ok(reply),
            Ok(Ok(Err(code))) => Err(Failure::Code(code)),
            Ok(Err(error)) => Err(Failure::Other(silent(match error.kind() {
                std::io::ErrorKind::InvalidData => "does not answer as Redis or Valkey does".to_owned(),
                kind => format!("broke the connection: {kind}"),
            }))),
            Err(_) => Err(Failure::Other(silent(format!("does not answer in {} s", ANSWER_WITHIN.as_secs())))),
        }
    }

    /// The error of a failure that has no words of its own; `command` is what was asked.
    pub(crate) fn explain(&self, failure: Failure, command: &str) -> Error {
        let place = &self.place;
        match failure {
            Failure::Other(error) => error,
            Failure::Code(code) => match code.as_str() {
                "NOPERM" | "NOAUTH" => {
                    Error::config(Code::Privilege, format!("{place} does not allow {command} to this user")).hint(
                        "give the user that sets passwords `+acl|getuser +acl|setuser +acl|save +role +cluster|nodes`",
                    )
                }
                "LOADING" | "MASTERDOWN" | "CLUSTERDOWN" | "BUSY" => {
                    Error::transient(Code::NotReady, format!("{place} is not ready: {code}"))
                }
                _ => Error::transient(Code::Server, format!("{place} answers {command} with {code}"))
                    .hint("see the server's log; ACLs need Redis 6 or newer, or Valkey"),
            },
        }
    }
}

type Answer = std::result::Result<Reply, String>;

/// One answer; `Err` in it is a refusal's code.
async fn read(stream: &mut BufReader<Box<dyn Stream>>, left: &mut usize, depth: usize) -> std::io::Result<Answer> {
    let strange = || std::io::Error::from(std::io::ErrorKind::InvalidData);
    let mut line = Vec::new();
    let read_now = (&mut *stream).take(64 * 1024).read_until(b'\n', &mut line).await?;
    if read_now == 0 {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    *left = left.checked_sub(read_now).ok_or_else(strange)?;
    let line = std::str::from_utf8(&line).ok().and_then(|line| line.strip_suffix("\r\n")).ok_or_else(strange)?;
    let (kind, rest) = line.split_at_checked(1).ok_or_else(strange)?;
    let length = || rest.parse::<i64>().map_err(|_| strange());
    Ok(match kind {
        "+" | ":" => Ok(Reply::Text(rest.to_owned())),
        "-" => Err(rest.chars().take_while(|it| it.is_ascii_uppercase() || *it == '_').take(30).collect()),
        "$" => match usize::try_from(length()?) {
            Err(_) => Ok(Reply::Nothing),
            Ok(length) => {
                *left = left.checked_sub(length + 2).ok_or_else(strange)?;
                let mut text = vec![0; length + 2];
                stream.read_exact(&mut text).await?;
                text.truncate(length);
                Ok(Reply::Text(String::from_utf8_lossy(&text).into_owned()))
            }
        },
        "*" if depth < 8 => match usize::try_from(length()?) {
            Err(_) => Ok(Reply::Nothing),
            Ok(length) => {
                let mut items = Vec::new();
                for _ in 0..length {
                    match Box::pin(read(stream, left, depth + 1)).await? {
                        Ok(item) => items.push(item),
                        refusal => return Ok(refusal),
                    }
                }
                Ok(Reply::List(items))
            }
        },
        _ => return Err(strange()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn answered(bytes: &[u8]) -> std::result::Result<Reply, String> {
        let (near, mut far) = tokio::io::duplex(1 << 16);
        far.write_all(bytes).await.unwrap();
        drop(far);
        let near: Box<dyn Stream> = Box::new(near);
        match read(&mut BufReader::new(near), &mut 1000, 0).await {
            Ok(answer) => answer,
            Err(error) => Err(error.kind().to_string()),
        }
    }

    #[tokio::test]
    async fn answers_of_all_sorts_are_read_and_nonsense_is_not() {
        let text = |text: &str| Reply::Text(text.to_owned());
        for (bytes, expected) in [
            ("+OK\r\n", Ok(text("OK"))),
            (":7\r\n", Ok(text("7"))),
            ("$5\r\na\r\nbc\r\n", Ok(text("a\r\nbc"))),
            ("$-1\r\n", Ok(Reply::Nothing)),
            ("*-1\r\n", Ok(Reply::Nothing)),
            ("*2\r\n$1\r\na\r\n*1\r\n:1\r\n", Ok(Reply::List(vec![text("a"), Reply::List(vec![text("1")])]))),
            ("-NOPERM this user\r\n", Err("NOPERM".to_owned())),
            ("-ERR x\r\n", Err("ERR".to_owned())),
        ] {
            assert_eq!(answered(bytes.as_bytes()).await, expected, "{bytes:?}");
        }
        for bytes in ["", "+OK", "HTTP/1.1 400 X\r\n", "$9999\r\n", "$x\r\n", &"*1\r\n".repeat(99), "*1\r\n$2\r\nab"] {
            assert!(answered(bytes.as_bytes()).await.is_err_and(|it| it.contains(' ')), "{bytes:?}");
        }
    }
}
