//! SMTP passwords of Amazon SES: derived from an access key, and valid in one Region. The secret holds no more of the access
//! key than its id, so who reads it can send mail and do nothing else.

use std::time::Duration;

use async_trait::async_trait;
use data_encoding::BASE64;
use ring::hmac;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufStream};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use super::access_key::{API, PERMISSIONS};
use super::{Credential, Profile, Proof, USERARN, USERNAME, User};
use crate::error::{Code, Error, Result};
use crate::kind::Field;
use crate::secret::{Secret, SecretText};
use crate::services::domain;
use crate::{net, tls};

/// An IAM user's SMTP user name and password.
pub(in crate::kinds) struct Smtp;

/// For connection, TLS and the dialogue together.
const SIGN_IN_WITHIN: Duration = Duration::from_secs(10);
/// TLS from the first byte on.
const PORT: u16 = 465;
/// All the lines of one reply. Those of SES are some hundred bytes.
const LONGEST_REPLY: u64 = 16 * 1024;

const PROFILE: Profile = Profile {
    names: &["ses-smtp"],
    summary: "the SMTP user name and password of Amazon SES",
    example: r#"{"kind":"ses-smtp","username":"mailer","SMTP_USERNAME":"AKIA…","SMTP_PASSWORD":"…"}"#,
    fields: &[
        USERNAME,
        USERARN,
        Field::optional(
            "SMTP_USERNAME",
            "",
            "the SMTP user name, which is the id of the access key; `SMTP_USER` where the secret has that",
        ),
        Field::optional("SMTP_PASSWORD", "", "the SMTP password; `SMTP_PASS` where the secret has that"),
        Field::setting("region", "the Region that mail is sent from; without it, that of the secret"),
        Field::setting("host", "where the password is tried; without it, `email-smtp.REGION.amazonaws.com`"),
        Field::setting("port", "the port for that, with TLS from the first byte on").default("465").number(),
    ],
    permissions: PERMISSIONS,
    what: "SMTP password of the access key",
    ids: &["SMTP_USERNAME", "SMTP_USER"],
    keys: &["SMTP_PASSWORD", "SMTP_PASS"],
    hint: ", and that `region` is the one of `host`, because an SMTP password is valid in one Region",
    api: &API,
};

#[async_trait]
impl Credential for Smtp {
    fn profile(&self) -> &'static Profile {
        &PROFILE
    }

    fn check(&self, user: &User<'_>, current: &Secret) -> Result<()> {
        user.region(current)?;
        server(user, current).map(drop)
    }

    fn derive(&self, user: &User<'_>, current: &Secret, key: SecretText) -> Result<SecretText> {
        Ok(password(key.expose(), user.region(current)?))
    }

    async fn sign_in(&self, user: &User<'_>, secret: &Secret, id: &str, key: &str) -> Result<Proof> {
        let (host, port) = server(user, secret)?;
        let place = format!("{host}:{port}");
        let tls = user.rotation.settings.trust.verify_full()?;
        let signed_in = async {
            let stream = net::connect(&host, port, &place).await?;
            let stream = tls::connect(tls, &host, stream, &place).await?;
            Dialogue { stream: BufStream::new(stream), place: &place }.sign_in(id, key).await
        };
        let refused = timeout(SIGN_IN_WITHIN, signed_in).await.unwrap_or_else(|_| {
            let within = SIGN_IN_WITHIN.as_secs();
            Err(Error::transient(Code::Timeout, format!("no answer from {place} in {within} s")))
        });
        let refused = refused.map_err(|error| match error.code() {
            Code::Unreachable | Code::Timeout => error.hint(
                "check that security groups and routes let the function reach the port: in a VPC, by the interface endpoint `email-smtp` of SES or a NAT gateway",
            ),
            _ => error,
        })?;
        Ok(match refused {
            None => Proof::Valid,
            Some(code) => Proof::Refused { by: place, code, early: true },
        })
    }
}

/// Where the password is tried.
fn server(user: &User<'_>, secret: &Secret) -> Result<(String, u16)> {
    let fields = secret.expose();
    let port = fields.number("port", 1, 65_535)?.and_then(|port| u16::try_from(port).ok()).unwrap_or(PORT);
    let host = match fields.filled("host")? {
        Some(host) => host.to_owned(),
        None => format!("email-smtp.{}.{}", user.region(secret)?, domain(user.home.partition)),
    };
    Ok((host, port))
}

/// The SMTP password of a secret access key, by the algorithm in the documentation of SES: the chain of a signature of
/// version 4, with a date that does not change, and a byte for the algorithm's own version before it.
fn password(key: &str, region: &str) -> SecretText {
    let first = SecretText::from(format!("AWS4{key}"));
    let sign = |key: &[u8], text: &str| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes());
    let chain = [region, "ses", "aws4_request", "SendRawEmail"];
    let signature =
        chain.iter().fold(sign(first.expose().as_bytes(), "11111111"), |key, text| sign(key.as_ref(), text));
    SecretText::from(BASE64.encode(&[&[4], signature.as_ref()].concat()))
}

/// One connection to an SMTP server.
struct Dialogue<'a> {
    stream: BufStream<TlsStream<TcpStream>>,
    place: &'a str,
}

impl Dialogue<'_> {
    /// AUTH PLAIN. Returns the code of a refusal.
    async fn sign_in(mut self, user: &str, password: &str) -> Result<Option<String>> {
        let (code, _) = self.reply().await?;
        self.expect(code, 220, "a connection")?;
        let (code, offered) = self.ask("EHLO localhost").await?;
        self.expect(code, 250, "EHLO")?;
        let plain = |line: &str| {
            let mut words = line.split_ascii_whitespace();
            words.next().is_some_and(|it| it.eq_ignore_ascii_case("AUTH"))
                && words.any(|it| it.eq_ignore_ascii_case("PLAIN"))
        };
        if !offered.iter().any(|line| plain(line)) {
            return Err(Error::config(Code::Server, format!("{} does not offer to sign in by AUTH PLAIN", self.place))
                .hint("check fields \"host\" and \"port\""));
        }
        let both = SecretText::from(format!("\0{user}\0{password}"));
        let both = SecretText::from(BASE64.encode(both.expose().as_bytes()));
        let command = SecretText::from(format!("AUTH PLAIN {}", both.expose()));
        let (code, _) = self.ask(command.expose()).await?;
        let refused = code == 535;
        if !refused {
            self.expect(code, 235, "AUTH")?;
        }
        // What becomes of the goodbye is of no interest.
        let _ = self.say("QUIT").await;
        Ok(refused.then(|| code.to_string()))
    }

    async fn ask(&mut self, line: &str) -> Result<(u16, Vec<String>)> {
        self.say(line).await.map_err(|error| self.broken(&error))?;
        self.reply().await
    }

    async fn say(&mut self, line: &str) -> std::io::Result<()> {
        self.stream.write_all(SecretText::from(format!("{line}\r\n")).expose().as_bytes()).await?;
        self.stream.flush().await
    }

    /// The code of a reply, and the text of its lines.
    async fn reply(&mut self) -> Result<(u16, Vec<String>)> {
        let mut lines = Vec::new();
        let mut left = LONGEST_REPLY;
        loop {
            let mut line = Vec::new();
            let read = (&mut self.stream).take(left).read_until(b'\n', &mut line).await;
            read.map_err(|error| self.broken(&error))?;
            if line.is_empty() && left > 0 {
                return Err(self.broken(&std::io::ErrorKind::UnexpectedEof.into()));
            }
            left = left.saturating_sub(line.len() as u64);
            let line = String::from_utf8_lossy(&line);
            let (Some(code), Some(rest)) = (line.get(..3).and_then(|it| it.parse().ok()), line.get(3..)) else {
                return Err(Error::config(
                    Code::Server,
                    format!("{} does not answer as an SMTP server does", self.place),
                )
                .hint("check fields \"host\" and \"port\""));
            };
            lines.push(rest.get(1..).unwrap_or_default().trim_end().to_owned());
            if !rest.starts_with('-') {
                return Ok((code, lines));
            }
        }
    }

    fn expect(&self, code: u16, expected: u16, to: &str) -> Result<()> {
        if code == expected {
            return Ok(());
        }
        Err(Error::transient(Code::Server, format!("{} answers {to} with {code}", self.place))
            .hint("nothing, if it is busy: Secrets Manager tries again"))
    }

    fn broken(&self, error: &std::io::Error) -> Error {
        Error::transient(Code::Unreachable, format!("{} broke the connection: {}", self.place, error.kind()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_the_one_of_the_algorithm_that_aws_documents() {
        for (region, expected) in [
            ("us-east-1", "BLBM/9hSUELfq8Gw+rU1YcBjkOxGbhT2XG763xVLGWL9"),
            ("eu-central-1", "BF0/eIJm0ruTHsSjOkRuOGzGF+zeSyE3aiRzrzUQ8LwG"),
        ] {
            assert_eq!(password("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", region).expose(), expected);
        }
    }
}
