//! What MySQL and MariaDB store instead of a password, made here so that no statement has the password in it.

use curve25519_dalek::EdwardsPoint;
use data_encoding::{BASE64_NOPAD, BASE64URL_NOPAD, HEXUPPER};
use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256, SHA512, digest};

use crate::error::Result;
use crate::password;

/// What `caching_sha2_password` stores at the least; a server may ask for more and accepts this.
const ROUNDS: usize = 5000;
/// Its salt, in characters.
const SALT: usize = 20;

/// `mysql_native_password`: SHA-1 of SHA-1.
pub(super) fn native(password: &str) -> String {
    let once = digest(&SHA1_FOR_LEGACY_USE_ONLY, password.as_bytes());
    format!("*{}", HEXUPPER.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, once.as_ref()).as_ref()))
}

/// MariaDB's `ed25519`: the public key to the private key that is the password's SHA-512 (RFC 8032 with the password in the
/// place of the seed).
pub(super) fn ed25519(password: &str) -> String {
    let hash = digest(&SHA512, password.as_bytes());
    let mut secret = [0; 32];
    secret.copy_from_slice(&hash.as_ref()[..32]);
    BASE64_NOPAD.encode(EdwardsPoint::mul_base_clamped(secret).compress().as_bytes())
}

/// `caching_sha2_password`, with a salt that is text.
pub(super) fn caching_sha2(password: &str) -> Result<String> {
    let salt = BASE64URL_NOPAD.encode(&password::random_bytes(SALT / 4 * 3)?);
    let hash = crypt(password.as_bytes(), salt.as_bytes(), ROUNDS);
    // Thousands of rounds, as three hexadecimal digits.
    Ok(format!("$A${:03X}${salt}{hash}", ROUNDS / 1000))
}

/// SHA-256 crypt (U. Drepper, "Unix crypt using SHA-256 and SHA-512") with the one difference that MySQL made to it: a salt
/// counts with all its bytes, where libraries cut it at 16.
fn crypt(password: &[u8], salt: &[u8], rounds: usize) -> String {
    let sum = |parts: &[&[u8]]| {
        let mut context = Context::new(&SHA256);
        for part in parts {
            context.update(part);
        }
        context.finish()
    };
    // `digest` repeated to the length of `like`.
    let stretch = |digest: &[u8], like: usize| digest.iter().copied().cycle().take(like).collect::<Vec<u8>>();

    let other = sum(&[password, salt, password]);
    let mut context = Context::new(&SHA256);
    context.update(password);
    context.update(salt);
    context.update(&stretch(other.as_ref(), password.len()));
    let mut bits = password.len();
    while bits > 0 {
        context.update(if bits & 1 == 1 { other.as_ref() } else { password });
        bits >>= 1;
    }
    let mut hash = context.finish();

    let passwords = stretch(sum(&vec![password; password.len()]).as_ref(), password.len());
    let salts = stretch(sum(&vec![salt; 16 + usize::from(hash.as_ref()[0])]).as_ref(), salt.len());
    for round in 0..rounds {
        let mut context = Context::new(&SHA256);
        context.update(if round & 1 == 1 { &passwords } else { hash.as_ref() });
        if round % 3 != 0 {
            context.update(&salts);
        }
        if round % 7 != 0 {
            context.update(&passwords);
        }
        context.update(if round & 1 == 1 { hash.as_ref() } else { &passwords });
        hash = context.finish();
    }
    in_letters(hash.as_ref())
}

/// Its own base 64: three bytes at a time in an order of its own, the lowest six bits first.
fn in_letters(hash: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut text = String::with_capacity(43);
    let mut put = |mut bits: u32, letters: usize| {
        for _ in 0..letters {
            text.push(char::from(LETTERS[(bits & 63) as usize]));
            bits >>= 6;
        }
    };
    let byte = |index: usize| u32::from(hash[index]);
    let (mut a, mut b, mut c) = (0, 10, 20);
    for _ in 0..10 {
        put(byte(a) << 16 | byte(b) << 8 | byte(c), 4);
        (a, b, c) = (c + 1, a + 1, b + 1);
    }
    put(byte(31) << 8 | byte(30), 3);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verifiers_are_those_of_the_servers() {
        // SELECT PASSWORD('secret'), and ed25519_password('secret') of MariaDB.
        assert_eq!(native("secret"), "*14E65567ABDB5135D0CFD9A70B3032C179A49EE7");
        assert_eq!(ed25519("secret"), "ZIgUREUg5PVgQ6LskhXmO+eZLS0nC8be6HPjYWR4YJY");
        // The example of the specification, whose salt is short enough to be the same.
        assert_eq!(crypt(b"Hello world!", b"saltstring", 5000), "5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5");
        let verifier = caching_sha2("secret").unwrap();
        assert!(verifier.starts_with("$A$005$") && verifier.len() == 7 + SALT + 43, "{verifier}");
    }
}
