//! Passwords: the rules as data, the randomness from the operating system.
//!
//! The seven environment variables and their defaults are those of AWS's rotation functions, and the character classes
//! those of `GetRandomPassword`.

use rand::rngs::{StdRng, SysRng};
use rand::seq::IndexedRandom as _;
use rand::{CryptoRng, SeedableRng as _};
use zeroize::Zeroizing;

use crate::error::{Code, Error, Result};
use crate::secret::SecretText;

const DIGITS: &str = "0123456789";
const UPPERCASE: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
const LOWERCASE: &str = "abcdefghijklmnopqrstuvwxyz";
const PUNCTUATION: &str = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~";

/// The longest password of `GetRandomPassword`, and so of AWS's functions.
pub const MAX_LENGTH: usize = 4096;

/// The function's environment variables for passwords, as they are; read when a password is made.
#[derive(Clone, Debug, Default)]
pub struct Environment(Vec<(&'static str, String)>);

impl Environment {
    /// The variables that AWS's functions read.
    pub const VARIABLES: [&'static str; 7] = [
        "EXCLUDE_CHARACTERS",
        "PASSWORD_LENGTH",
        "EXCLUDE_NUMBERS",
        "EXCLUDE_PUNCTUATION",
        "EXCLUDE_UPPERCASE",
        "EXCLUDE_LOWERCASE",
        "REQUIRE_EACH_INCLUDED_TYPE",
    ];

    /// Takes the variables that are set from `lookup`.
    pub fn read(lookup: impl Fn(&str) -> Option<String>) -> Self {
        Self(Self::VARIABLES.into_iter().filter_map(|name| Some((name, lookup(name)?))).collect())
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(it, _)| *it == name).map(|(_, value)| value.as_str())
    }

    /// True for `true`, `1`, `y`, `yes` in any case, as AWS's functions read it.
    fn flag(&self, name: &str, default: bool) -> bool {
        self.text(name).map_or(default, |text| matches!(text.to_ascii_lowercase().as_str(), "true" | "1" | "y" | "yes"))
    }

    /// The rules for a service that says itself how long a password may be, and of what.
    ///
    /// # Errors
    /// Config, when a variable cannot be used; the message names it.
    pub fn rules_within(&self, limits: &Limits) -> Result<Rules> {
        let mut rules = self.rules(limits.exclude)?;
        for class in &mut rules.classes {
            class.retain(|it| !limits.never.contains(*it));
        }
        rules.classes.retain(|class| !class.is_empty());
        if rules.classes.is_empty() {
            return Err(no_character());
        }
        if self.text("PASSWORD_LENGTH").is_none() {
            rules.length = limits.usual;
        }
        if !(limits.shortest..=limits.longest).contains(&rules.length) {
            let message = format!(
                "PASSWORD_LENGTH is {}, and the service takes from {} to {} characters",
                rules.length, limits.shortest, limits.longest
            );
            return Err(
                Error::config(Code::Environment, message).hint("change it, or unset it for a length that suits")
            );
        }
        Ok(rules)
    }

    /// The rules for an engine whose passwords may not contain `default_exclude` unless the environment says otherwise.
    ///
    /// # Errors
    /// Config, when a variable cannot be used; the message names it.
    pub fn rules(&self, default_exclude: &str) -> Result<Rules> {
        let length = match self.text("PASSWORD_LENGTH") {
            None => 32,
            Some(text) => {
                text.trim().parse().ok().filter(|length| (1..=MAX_LENGTH).contains(length)).ok_or_else(|| {
                    Error::config(Code::Environment, format!("PASSWORD_LENGTH is {text:?}"))
                        .hint(format!("a whole number from 1 to {MAX_LENGTH}"))
                })?
            }
        };
        let exclude = self.text("EXCLUDE_CHARACTERS").unwrap_or(default_exclude);
        let classes: Vec<Vec<char>> = [
            ("EXCLUDE_NUMBERS", DIGITS),
            ("EXCLUDE_UPPERCASE", UPPERCASE),
            ("EXCLUDE_LOWERCASE", LOWERCASE),
            ("EXCLUDE_PUNCTUATION", PUNCTUATION),
        ]
        .into_iter()
        .filter(|(name, _)| !self.flag(name, false))
        .map(|(_, class)| class.chars().filter(|it| !exclude.contains(*it)).collect::<Vec<_>>())
        // A class of which nothing is left cannot be required.
        .filter(|class| !class.is_empty())
        .collect();
        if classes.is_empty() {
            return Err(no_character());
        }
        let require_each = self.flag("REQUIRE_EACH_INCLUDED_TYPE", true);
        if require_each && length < classes.len() {
            return Err(Error::config(
                Code::Environment,
                format!("PASSWORD_LENGTH is {length}, with {} types of characters required", classes.len()),
            )
            .hint("make it longer, or set REQUIRE_EACH_INCLUDED_TYPE to false"));
        }
        Ok(Rules { length, classes, require_each })
    }
}

fn no_character() -> Error {
    Error::config(Code::Environment, "EXCLUDE_CHARACTERS and EXCLUDE_… leave no character")
        .hint("let at least one class of characters be")
}

/// What a service takes as a password.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The length without `PASSWORD_LENGTH`.
    pub usual: usize,
    /// The least number of characters.
    pub shortest: usize,
    /// The greatest number of characters.
    pub longest: usize,
    /// What is left out unless `EXCLUDE_CHARACTERS` says otherwise.
    pub exclude: &'static str,
    /// What the service refuses, whatever the environment says.
    pub never: &'static str,
}

impl Limits {
    /// Whether the service can have taken this password.
    #[must_use]
    pub fn allow(&self, password: &str) -> bool {
        (self.shortest..=self.longest).contains(&password.chars().count())
            && !password.contains(|it| self.never.contains(it))
    }
}

/// What a password is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    length: usize,
    classes: Vec<Vec<char>>,
    require_each: bool,
}

impl Rules {
    /// The same rules with another length, in characters.
    ///
    /// # Errors
    /// Config, when that is too short for one character of each required type.
    pub fn with_length(mut self, length: usize) -> Result<Self> {
        if self.require_each && length < self.classes.len() {
            return Err(Error::config(
                Code::Field,
                format!("field \"length\" is {length}, with {} types of characters required", self.classes.len()),
            ));
        }
        self.length = length;
        Ok(self)
    }

    /// A new password.
    ///
    /// # Errors
    /// Transient, when the operating system has no randomness to give.
    pub fn generate(&self) -> Result<SecretText> {
        Ok(self.generate_from(&mut os_rng()?))
    }

    /// All passwords that keep the rules are equally likely: what breaks them is thrown away whole.
    fn generate_from(&self, rng: &mut impl CryptoRng) -> SecretText {
        let alphabet: Vec<char> = self.classes.iter().flatten().copied().collect();
        loop {
            let password: Zeroizing<String> =
                Zeroizing::new((0..self.length).map(|_| alphabet.choose(rng).copied().unwrap_or_default()).collect());
            if !self.require_each || self.classes.iter().all(|class| password.contains(class.as_slice())) {
                return SecretText::from(password.to_string());
            }
        }
    }
}

/// `length` random bytes.
///
/// # Errors
/// Transient, when the operating system has no randomness to give.
pub fn random_bytes(length: usize) -> Result<Zeroizing<Vec<u8>>> {
    use rand::Rng as _;
    let mut bytes = Zeroizing::new(vec![0; length]);
    os_rng()?.fill_bytes(&mut bytes);
    Ok(bytes)
}

/// A cryptographic generator, seeded anew by the operating system for each credential.
fn os_rng() -> Result<StdRng> {
    StdRng::try_from_rng(&mut SysRng)
        .map_err(|error| Error::transient(Code::Server, format!("the operating system has no randomness: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn environment(pairs: &[(&'static str, &str)]) -> Environment {
        Environment(pairs.iter().map(|(name, value)| (*name, (*value).to_owned())).collect())
    }

    #[test]
    fn defaults_are_those_of_aws() {
        let rules = Environment::default().rules(":/@\"'\\").unwrap();
        let password = rules.generate().unwrap();
        assert_eq!(password.expose().len(), 32);
        for class in [DIGITS, UPPERCASE, LOWERCASE, PUNCTUATION] {
            assert!(password.expose().contains(|it| class.contains(it)));
        }
        assert!(!password.expose().contains([':', '/', '@', '"', '\'', '\\']));
    }

    #[test]
    fn what_a_service_refuses_is_left_out_whatever_the_environment_says() {
        let limits = Limits { usual: 8, shortest: 8, longest: 4096, exclude: "", never: "/@" };
        let long = [("EXCLUDE_CHARACTERS", ""), ("PASSWORD_LENGTH", "4096")];
        let password = environment(&long).rules_within(&limits).unwrap().generate().unwrap();
        assert!(!password.expose().contains(['/', '@']) && password.expose().contains(':'));
    }

    #[test]
    fn known_answer() {
        let rules = Environment::default().rules("").unwrap();
        let mut rng = StdRng::from_seed([7; 32]);
        let first = rules.generate_from(&mut rng);
        let again = rules.generate_from(&mut StdRng::from_seed([7; 32]));
        let next = rules.generate_from(&mut rng);
        assert_eq!(first.expose(), again.expose());
        assert_eq!(first.expose(), KNOWN);
        assert_ne!(first.expose(), next.expose());
    }
    const KNOWN: &str = "iC6(_ooOMCk=QcDDeld.mYvV&F#r&HV2";

    #[test]
    fn flags_are_read_as_aws_reads_them() {
        for (text, expected) in [("true", true), ("YES", true), ("y", true), ("1", true), ("on", false), ("", false)] {
            assert_eq!(environment(&[("EXCLUDE_NUMBERS", text)]).flag("EXCLUDE_NUMBERS", false), expected, "{text}");
        }
    }

    #[test]
    fn unusable_variables_are_named() {
        for (pairs, expected) in [
            (vec![("PASSWORD_LENGTH", "long")], "PASSWORD_LENGTH is \"long\""),
            (vec![("PASSWORD_LENGTH", "0")], "PASSWORD_LENGTH is \"0\""),
            (vec![("PASSWORD_LENGTH", "4097")], "PASSWORD_LENGTH is \"4097\""),
            (vec![("PASSWORD_LENGTH", "3")], "with 4 types of characters required"),
            (
                vec![
                    ("EXCLUDE_NUMBERS", "true"),
                    ("EXCLUDE_UPPERCASE", "true"),
                    ("EXCLUDE_LOWERCASE", "true"),
                    ("EXCLUDE_PUNCTUATION", "true"),
                ],
                "leave no character",
            ),
        ] {
            let error = environment(&pairs).rules("").unwrap_err();
            assert_eq!(error.code(), Code::Environment);
            assert!(error.to_string().contains(expected), "{error}");
        }
    }

    proptest! {
        #[test]
        fn a_password_never_breaks_the_rules(
            exclude in proptest::string::string_regex("[ -~]{0,60}").unwrap(),
            length in 1_usize..80,
            flags in proptest::array::uniform5(any::<bool>()),
        ) {
            let names = ["EXCLUDE_NUMBERS", "EXCLUDE_UPPERCASE", "EXCLUDE_LOWERCASE", "EXCLUDE_PUNCTUATION"];
            let mut pairs = vec![("EXCLUDE_CHARACTERS", exclude.clone()), ("PASSWORD_LENGTH", length.to_string())];
            pairs.extend(names.into_iter().zip(flags).map(|(name, flag)| (name, flag.to_string())));
            pairs.push(("REQUIRE_EACH_INCLUDED_TYPE", flags[4].to_string()));
            let allowed: Vec<Vec<char>> = [DIGITS, UPPERCASE, LOWERCASE, PUNCTUATION]
                .into_iter()
                .zip(flags)
                .filter(|(_, excluded)| !excluded)
                .map(|(class, _)| class.chars().filter(|it| !exclude.contains(*it)).collect::<Vec<char>>())
                .filter(|class| !class.is_empty())
                .collect();
            let possible = !allowed.is_empty() && (!flags[4] || length >= allowed.len());
            match Environment(pairs).rules("ignored") {
                Err(error) => prop_assert!(!possible, "{}", error),
                Ok(rules) => {
                    prop_assert!(possible);
                    let password = rules.generate().unwrap();
                    let password = password.expose();
                    prop_assert_eq!(password.chars().count(), length);
                    prop_assert!(password.chars().all(|it| allowed.iter().flatten().any(|ok| *ok == it)));
                    prop_assert!(!flags[4] || allowed.iter().all(|class| password.contains(class.as_slice())));
                }
            }
        }
    }
}
