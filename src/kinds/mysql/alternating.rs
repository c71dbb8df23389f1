//! How MySQL's and MariaDB's alternating users are kept alike.
//!
//! An account has a name and a host part, and a login is all accounts of one name. For each account of the base user the
//! clone gets one with the same host part, and at every turn they are compared: rights, roles, default roles, TLS, limits and
//! lock. What is missing is given before the password is set, so that a clone that signs in is complete.
//!
//! Nothing on these servers marks a clone as ours. A pair is ours if its accounts are alike to the letter, or else if a
//! password of the secret opens the pending one.

use super::connect::{Failure, Rows, Session, server_error};
use super::grants::{Account, Demands, Right, Rights, literal, together};
use super::{MySql, OPTION_PREVENTS, Server, change_error, set_password, verifier};
use crate::error::{Code, Error, Result};
use crate::kind::Rotation;
use crate::sql::{Dual, Pair};

/// What is known of one account.
#[derive(PartialEq, Eq)]
struct Known {
    host: String,
    rights: Rights,
    account: Account,
}

impl Known {
    /// The account that alternates with this one, in the words of the server.
    fn named(&self, user: &str) -> String {
        format!("{}@{}", literal(user), literal(&self.host))
    }
}

/// Statements of this kind commit by themselves, so they go in an order in which each may be the last: accounts first, with
/// the pending password, which is how a later try knows them; then what they may do; then, for those that were there, the
/// password.
pub(super) async fn prepare(
    engine: &MySql,
    rotation: &Rotation<'_>,
    admin: &mut Session,
    pair: &Pair<'_>,
) -> Result<()> {
    let server = Server::of(admin).await?;
    let mut work = Work { rotation, admin, pair, server, gone: Vec::new(), changed: false };
    let bases = work.accounts(pair.base).await?;
    if bases.is_empty() {
        return Err(pair.no_base());
    }
    let clones = work.accounts(pair.clone).await?;
    let alike = |clone: &Known| bases.iter().any(|base| base == clone);
    // A base user whose clone is gone cannot have been reached by it: the current one signed in a moment ago.
    if !clones.is_empty() && !clones.iter().all(alike) && !pair.opens(engine).await? {
        return Err(pair.unproven());
    }
    if pair.is_clone() {
        work.complete(&bases, &clones).await?;
    }
    let pending = if pair.is_clone() { work.completed(&bases).await? } else { bases };
    if !pending.iter().any(|it| it.account.plugin.is_some()) {
        return Err(without_password(pair, pair.user()));
    }
    for known in &pending {
        work.set_password(known).await?;
    }
    Ok(())
}

fn without_password(pair: &Pair<'_>, user: &str) -> Error {
    Error::config(
        Code::Pair,
        format!("user {user:?} at {} has an account that signs in without a password", pair.place),
    )
    .hint("`ALTER USER … IDENTIFIED BY`; there is nothing to rotate")
}

struct Work<'a> {
    rotation: &'a Rotation<'a>,
    admin: &'a mut Session,
    pair: &'a Pair<'a>,
    server: Server,
    /// Rights to what is no longer there.
    gone: Vec<Right>,
    /// Whether a statement of this step has changed something.
    changed: bool,
}

impl Work<'_> {
    /// Everything that is known of the accounts of a name.
    async fn accounts(&mut self, user: &str) -> Result<Vec<Known>> {
        // Names are compared as bytes, whatever the collation; roles have no host part in MariaDB.
        let hosts = format!(
            "SELECT host, ssl_type, x509_subject, x509_issuer, ssl_cipher FROM mysql.user \
             WHERE BINARY user = BINARY {} AND host <> '' ORDER BY host",
            literal(user)
        );
        let hosts = self.ask(&hosts).await?;
        let mut known = Vec::new();
        for row in hosts {
            let mut row = row.into_iter().map(Option::unwrap_or_default);
            let mut next = || row.next().unwrap_or_default();
            let host = next();
            let demands = Demands { kind: next(), subject: next(), issuer: next(), cipher: next() };
            let account = format!("{}@{}", literal(user), literal(&host));
            let created = self.ask(&format!("SHOW CREATE USER {account}")).await?;
            let created = created.first().and_then(|row| row.first()).and_then(Option::as_deref).unwrap_or_default();
            let granted = self.ask(&format!("SHOW GRANTS FOR {account}")).await?;
            let granted = granted.iter().filter_map(|row| row.first()?.as_deref());
            let rights = Rights::read(granted);
            let account = Account::read(created, &demands).ok_or_else(|| {
                let message = format!("what {} says of user {account} is not understood", self.pair.place);
                Error::config(Code::Pair, message).hint("look at its SHOW CREATE USER, and report it as a defect")
            })?;
            known.push(Known { host, rights, account });
        }
        Ok(known)
    }

    /// Makes the clone's accounts what those of the base user are.
    async fn complete(&mut self, bases: &[Known], clones: &[Known]) -> Result<()> {
        let pair = self.pair;
        let mut words = Vec::new();
        for clone in clones.iter().filter(|clone| !bases.iter().any(|base| base.host == clone.host)) {
            let account = clone.named(pair.clone);
            if pair.revoke_extras {
                self.change(&format!("DROP USER IF EXISTS {account}")).await?;
            } else {
                words.push(format!("the account {account}"));
            }
        }
        self.create(bases.iter().filter(|base| !clones.iter().any(|clone| clone.host == base.host))).await?;
        for base in bases {
            let account = base.named(pair.clone);
            let clone = clones.iter().find(|clone| clone.host == base.host);
            if clone.is_none_or(|clone| clone.account.limits != base.account.limits) {
                self.change(&format!("ALTER USER {account} {}", base.account.limits)).await?;
            }
            let none = Rights::default();
            let rights = clone.map_or(&none, |clone| &clone.rights);
            let extras = rights.extras(&base.rights);
            if pair.revoke_extras {
                for (right, option_only) in &extras {
                    self.change(&right.revoke(&account, *option_only)).await?;
                }
            } else {
                words.extend(extras.iter().map(|(right, _)| right.to_string()));
            }
            // Taking away ALL PRIVILEGES takes more than was meant, so then everything is given anew.
            let left = if pair.revoke_extras && !extras.is_empty() { &none } else { rights };
            for rights in together(left.missing(&base.rights)) {
                self.grant(&rights, &account).await?;
            }
            self.default_roles(base, clone, &account).await?;
        }
        if !words.is_empty() {
            let text = format!("user {:?} has more than {:?}: {}", pair.clone, pair.base, words.join(", "));
            self.rotation.note(text);
        }
        Ok(())
    }

    /// All in one statement: the account that lets the function in, by which a later try knows the clone, is not the last.
    async fn create(&mut self, bases: impl Iterator<Item = &Known>) -> Result<()> {
        let mut accounts = Vec::new();
        for base in bases {
            let plugin = base.account.plugin.as_deref().ok_or_else(|| without_password(self.pair, self.pair.base))?;
            accounts.push((base.named(self.pair.clone), plugin));
        }
        if accounts.is_empty() { Ok(()) } else { self.identify("CREATE USER", &accounts).await }
    }

    /// How a statement gives an account of `plugin` a password: hashed if that is known here, and in clear.
    fn identified(&self, plugin: &str, password: &str) -> Result<(String, String)> {
        let hash = match plugin {
            "mysql_native_password" => Some(verifier::native(password)),
            "ed25519" => Some(verifier::ed25519(password)),
            "caching_sha2_password" => Some(verifier::caching_sha2(password)?),
            _ => None,
        };
        let plugin = literal(plugin);
        let (with, hashed, in_clear) = if self.server.mariadb {
            (format!("VIA {}", plugin.trim_matches('\'')), "USING", format!("USING PASSWORD({})", literal(password)))
        } else {
            (format!("WITH {plugin}"), "AS", format!("BY {}", literal(password)))
        };
        let in_clear = format!("{with} {in_clear}");
        Ok((hash.map_or_else(|| in_clear.clone(), |hash| format!("{with} {hashed} {}", literal(&hash))), in_clear))
    }

    /// The clone's accounts, once more than a login: what is still missing is an error.
    async fn completed(&mut self, bases: &[Known]) -> Result<Vec<Known>> {
        let Pair { base: model, clone: name, ref place, .. } = *self.pair;
        let clones = self.accounts(name).await?;
        for base in bases {
            let none = Rights::default();
            let clone = clones.iter().find(|clone| clone.host == base.host);
            let mut missing = clone.map_or(&none, |clone| &clone.rights).missing(&base.rights);
            missing.retain(|right| !self.gone.contains(right));
            if let Some(right) = missing.first() {
                let message = format!("user {name:?} at {place} has not got what {model:?} has: {right}");
                return Err(Error::config(Code::Pair, message)
                    .hint("grant it by hand, or take it from the base user, and rotate anew"));
            }
        }
        Ok(clones)
    }

    /// A right to something that is no longer there is no right.
    async fn grant(&mut self, right: &Right, account: &str) -> Result<()> {
        match self.try_change(&right.grant(account)).await {
            // No such table (1146), routine (1305) or column (1054).
            Err(Failure::Number(1054 | 1146 | 1305)) => {
                self.gone.extend(right.each());
                Ok(())
            }
            Err(Failure::Number(number)) => {
                self.unchanged();
                let message = format!(
                    "the administrator at {} may not give {:?} what {:?} has: {right} (error {number})",
                    self.pair.place, self.pair.clone, self.pair.base
                );
                Err(Error::config(Code::Pair, message).hint(
                    "it needs the right itself, WITH GRANT OPTION (roles: WITH ADMIN OPTION); or take it from the base user",
                ))
            }
            other => self.told(other),
        }
    }

    async fn default_roles(&mut self, base: &Known, clone: Option<&Known>, account: &str) -> Result<()> {
        let (wanted, found) = (&base.account.default_roles, clone.and_then(|it| it.account.default_roles.as_ref()));
        if wanted.as_ref() != found {
            self.change(&format!("ALTER USER {account} DEFAULT ROLE {}", wanted.as_deref().unwrap_or("NONE"))).await?;
        }
        let (wanted, found) = (&base.rights.default_role, clone.and_then(|it| it.rights.default_role.as_ref()));
        if wanted.as_ref() != found {
            self.change(&format!("SET DEFAULT ROLE {} FOR {account}", wanted.as_deref().unwrap_or("NONE"))).await?;
        }
        Ok(())
    }

    async fn set_password(&mut self, known: &Known) -> Result<()> {
        let Some(plugin) = known.account.plugin.as_deref() else { return Ok(()) };
        let (user, password) = (self.pair.user(), self.pair.pending.password);
        let account = known.named(user);
        self.rotation.changing();
        if self.server.mariadb && known.account.several {
            // ALTER USER would take the other ways away. This needs UPDATE on the database mysql.
            let changed = set_password(self.admin, &format!(" FOR {account}"), Some(plugin), password).await;
            return self.told(changed);
        }
        if !self.server.mariadb && self.server.version < (5, 7, 6) {
            return self
                .change(&format!("SET PASSWORD FOR {account} = {}", literal(&verifier::native(password))))
                .await;
        }
        self.identify("ALTER USER", &[(account, plugin)]).await
    }

    /// Gives accounts, each with its plugin, the new password: hashed, or in clear where the server wants to check it.
    async fn identify(&mut self, verb: &str, accounts: &[(String, &str)]) -> Result<()> {
        let (mut hashed, mut in_clear) = (Vec::new(), Vec::new());
        for (account, plugin) in accounts {
            let (hash, clear) = self.identified(plugin, self.pair.pending.password)?;
            hashed.push(format!("{account} IDENTIFIED {hash}"));
            in_clear.push(format!("{account} IDENTIFIED {clear}"));
        }
        match self.try_change(&format!("{verb} {}", hashed.join(", "))).await {
            Err(Failure::Number(OPTION_PREVENTS)) if hashed != in_clear => {
                self.change(&format!("{verb} {}", in_clear.join(", "))).await
            }
            other => self.told(other),
        }
    }

    async fn ask(&mut self, sql: &str) -> Result<Rows> {
        let answered = self.admin.run(sql).await;
        answered.map_err(|failure| match failure {
            Failure::Number(number) => self.refused(number),
            Failure::Other(error) => error,
        })
    }

    async fn change(&mut self, sql: &str) -> Result<()> {
        let changed = self.try_change(sql).await;
        self.told(changed)
    }

    async fn try_change(&mut self, sql: &str) -> std::result::Result<(), Failure> {
        self.rotation.changing();
        match self.admin.run(sql).await {
            // That the statement failed (1396), which MariaDB says of ALTER USER; the cause is among the warnings.
            Err(Failure::Number(1396)) => {
                let warnings = self.admin.run("SHOW WARNINGS").await?;
                let mut codes = warnings.iter().filter_map(|row| row.get(1)?.as_deref()?.parse().ok());
                Err(Failure::Number(codes.find(|code| *code != 1396).unwrap_or(1396)))
            }
            Err(failure) => Err(failure),
            Ok(_) => {
                self.changed = true;
                Ok(())
            }
        }
    }

    /// To be called when a statement was definitely refused.
    fn unchanged(&self) {
        if !self.changed {
            self.rotation.unchanged();
        }
    }

    fn told(&self, changed: std::result::Result<(), Failure>) -> Result<()> {
        changed.map_err(|failure| match failure {
            Failure::Number(number) => {
                self.unchanged();
                self.refused(number)
            }
            Failure::Other(error) => error,
        })
    }

    fn refused(&self, number: u16) -> Error {
        let Pair { base, place, .. } = self.pair;
        match number {
            1044 | 1045 | 1142 | 1143 | 1227 | 1410 => {
                let message = format!(
                    "the administrator at {place} may not make {:?} like {base:?} (error {number})",
                    self.pair.user()
                );
                Error::config(Code::Pair, message).hint(
                    "it needs CREATE USER, SELECT on the database mysql, and what it is to grant WITH GRANT OPTION",
                )
            }
            OPTION_PREVENTS | 1819 | 1836 | 3638 => change_error(number, self.pair.user(), place, Dual::Never),
            _ => server_error(number, place),
        }
    }
}
