//! AMQP 0-9-1 as far as a sign-in goes: it is the one thing that every user of RabbitMQ may do, where the management API is
//! for users with a tag. <https://www.rabbitmq.com/resources/specs/amqp0-9-1.pdf>, 1.4 for the methods, 4.2 for the frames.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::error::{Code, Error, Result, Which};
use crate::wire::{Place, Stream, open};

/// The port with TLS.
pub(crate) const PORT: u16 = 5671;
/// For the whole sign-in; RabbitMQ waits a second before it refuses.
const ANSWER_WITHIN: Duration = Duration::from_secs(6);
/// What the server says before the sign-in is shorter.
const LONGEST_FRAME: u32 = 1 << 16;
const END: u8 = 0xce;

/// Methods of the class `connection`, which is 10.
const START: u16 = 10;
const START_OK: u16 = 11;
const TUNE: u16 = 30;
const TUNE_OK: u16 = 31;
const OPEN: u16 = 40;
const OPEN_OK: u16 = 41;
const CLOSE: u16 = 50;

/// Signs in and opens the virtual host, as every client does.
///
/// # Errors
/// Rejected, when user and password, or the virtual host, are refused; Transient, when there is no answer.
pub(crate) async fn sign_in(at: &Place<'_>, user: &str, password: &str, vhost: &str) -> Result<()> {
    let place = at.name();
    let mut stream = open(at).await?;
    let talk = async {
        stream.write_all(b"AMQP\x00\x00\x09\x01").await?;
        if heard(&mut stream).await?.0 != START {
            return Err(odd());
        }
        send(&mut stream, START_OK, &start_ok(user, password)).await?;
        match heard(&mut stream).await? {
            (TUNE, limits) => send(&mut stream, TUNE_OK, limits.get(..8).ok_or_else(odd)?).await?,
            (CLOSE, refused) => return Ok(Some(refused)),
            _ => return Err(odd()),
        }
        let mut arguments = short_text(vhost);
        arguments.extend([0, 0]);
        send(&mut stream, OPEN, &arguments).await?;
        match heard(&mut stream).await? {
            (OPEN_OK, _) => Ok(None),
            (CLOSE, refused) => Ok(Some(refused)),
            _ => Err(odd()),
        }
    };
    let answered = timeout(ANSWER_WITHIN, talk).await.map_err(|_| {
        Error::transient(Code::Timeout, format!("no answer from {place} in {} s", ANSWER_WITHIN.as_secs()))
    })?;
    let refused = answered.map_err(|error: std::io::Error| {
        let what = if error.kind() == std::io::ErrorKind::InvalidData { "that is no AMQP" } else { "it broke" };
        Error::transient(Code::Unreachable, format!("the connection to {place} gave no answer: {what}"))
    })?;
    match refused.map(|it| it.get(..2).map_or(0, |code| u16::from_be_bytes([code[0], code[1]]))) {
        None => Ok(()),
        Some(403) => {
            let message = format!("{place} refuses user {user:?} and its password");
            Err(Error::rejected(Which::Pending, Code::WrongPassword, message))
        }
        // A virtual host that there is none of is 530, and so is one that the user may not enter.
        Some(530) => {
            let message = format!("{place} does not let user {user:?} into the virtual host {vhost:?}");
            Err(Error::rejected(Which::Pending, Code::NotPermitted, message)
                .hint("check field \"vhost\", and the user's permissions"))
        }
        Some(code) => Err(Error::transient(Code::Server, format!("{place} ends the sign-in with code {code}"))),
    }
}

/// No frame of AMQP, or one that does not belong there.
fn odd() -> std::io::Error {
    std::io::ErrorKind::InvalidData.into()
}

/// The arguments of `start-ok`: what the client can do, the mechanism, what it signs in with, the language.
fn start_ok(user: &str, password: &str) -> Zeroizing<Vec<u8>> {
    let mut able = short_text("authentication_failure_close");
    able.extend([b't', 1]);
    let mut properties = short_text("capabilities");
    properties.push(b'F');
    properties.extend(long(&able));
    let mut credentials = Zeroizing::new(Vec::with_capacity(user.len() + password.len() + 2));
    for text in [user, password] {
        credentials.push(0);
        credentials.extend(text.as_bytes());
    }
    let mut arguments = Zeroizing::new(Vec::with_capacity(credentials.len() + 256));
    arguments.extend(long(&properties));
    arguments.extend(short_text("PLAIN"));
    arguments.extend(u32::try_from(credentials.len()).unwrap_or(u32::MAX).to_be_bytes());
    arguments.extend(credentials.iter());
    arguments.extend(short_text("en_US"));
    arguments
}

fn short_text(text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len()).unwrap_or(u8::MAX);
    [&[length], &text.as_bytes()[..usize::from(length)]].concat()
}

fn long(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes(), bytes].concat()
}

async fn send(stream: &mut Box<dyn Stream>, method: u16, arguments: &[u8]) -> std::io::Result<()> {
    let mut frame = Zeroizing::new(Vec::with_capacity(arguments.len() + 12));
    frame.extend([1, 0, 0]);
    frame.extend(u32::try_from(arguments.len() + 4).map_err(|_| odd())?.to_be_bytes());
    frame.extend([0, 10]);
    frame.extend(method.to_be_bytes());
    frame.extend(arguments);
    frame.push(END);
    stream.write_all(&frame).await?;
    stream.flush().await
}

/// The next method of the class `connection`, and its arguments.
async fn heard(stream: &mut Box<dyn Stream>) -> std::io::Result<(u16, Vec<u8>)> {
    let mut head = [0; 7];
    stream.read_exact(&mut head).await?;
    let [kind, _, _, size @ ..] = head;
    let size = u32::from_be_bytes(size);
    if kind != 1 || !(4..=LONGEST_FRAME).contains(&size) {
        return Err(odd());
    }
    let mut body = vec![0; size as usize + 1];
    stream.read_exact(&mut body).await?;
    if body.pop() != Some(END) || body[..2] != [0, 10] {
        return Err(odd());
    }
    let method = u16::from_be_bytes([body[2], body[3]]);
    Ok((method, body.split_off(4)))
}
