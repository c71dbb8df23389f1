//! What the SQL databases have in common: the fields of their secrets, and the strategies. An [`Engine`] knows one server's
//! statements; [`Sql`] makes a [`Kind`] of it.
//!
//! - *single user*: the login changes its own password. What is current signs in first, so that the usual rotation has no
//!   refused sign-in at all; then what is pending, and then older values.
//! - *alternating users* (`masterarn`): an administrator keeps `app` and `app_clone` alike, and each rotation gives the other
//!   one a new password, so that pods which still hold the old login go on.
//! - *dual password* (MySQL): as single user, but the old password stays valid beside the new one.

use std::time::Duration;

use async_trait::async_trait;

use crate::admin;
use crate::error::{Code, Error, Result, Which};
use crate::kind::{Field, Kind, Rotation, Settings, Versions};
use crate::net::same_machine;
use crate::secret::{Exposed, Secret, SecretText};
use crate::tls::{Ask, Trust};
pub(crate) use crate::tls::{SSL, SSLCERT, SSLKEY, SSLMODE, SSLROOTCERT};

/// For name, connection, TLS and sign-in together; AWS's functions give as much to the connection.
pub(crate) const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// For one statement.
pub(crate) const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// The other user's name ends in this: AWS's, for every engine that has one.
const SUFFIX: &str = "_clone";
/// A replica gets a new password when it has caught up. So many sign-ins are tried, with pauses of 1, 2, 4 … seconds.
const REPLICA_TRIES: u32 = 4;

pub(crate) const HOST: Field = Field::required("host", "name of the server; of the writer, in a cluster");
pub(crate) const USERNAME: Field = Field::required("username", "the login");
pub(crate) const PASSWORD: Field = Field::required("password", "the password");
pub(crate) const MASTERARN: Field = Field::setting(
    "masterarn",
    "ARN of the administrator's secret, for two users that alternate; also `adminarn`. Without it the login changes its own password",
);
pub(crate) const STRATEGY: Field = Field::setting(
    "strategy",
    "`single-user` or `alternating-users`; without it `masterarn` chooses alternating users",
);
pub(crate) const EXTRAS: Field = Field::setting(
    "extras",
    "alternating users: what happens to rights that the clone has and the base user has not: `report` or `revoke`",
)
.default("report");
pub(crate) const PROBE: Field =
    Field::setting("probe", "a statement for testSecret, run in a read-only transaction").default("SELECT 1");

/// What is known of an engine without asking a server.
pub(crate) struct Profile {
    pub(crate) names: &'static [&'static str],
    pub(crate) summary: &'static str,
    pub(crate) example: &'static str,
    pub(crate) fields: &'static [Field],
    pub(crate) port: u16,
    /// The database to sign in to when the secret names none.
    pub(crate) database: Option<&'static str>,
    /// AWS's default of `EXCLUDE_CHARACTERS`: these break connection strings and password files.
    pub(crate) excluded: &'static str,
    /// Whether the server can keep the old password beside the new one.
    pub(crate) dual: bool,
    /// Whether RDS may have replicas of it, which the administrator's secret does not name.
    pub(crate) replicas: bool,
}

/// One server's way of speaking: connections, statements, errors.
#[async_trait]
pub(crate) trait Engine: Send + Sync + 'static {
    /// A session of one login. Dropping it breaks the connection.
    type Session: Send;

    fn profile(&self) -> &'static Profile;

    /// What is wrong with the fields that only this engine has.
    fn check_fields(&self, fields: Exposed<'_>) -> Result<()>;

    /// How much of the server's certificate is checked.
    fn tls<'a>(&self, fields: Exposed<'a>) -> Result<Ask<'a>> {
        Ask::of(fields)
    }

    /// How long a name may be, and what is counted.
    fn name_limit(&self, settings: &Settings) -> Result<(usize, &'static str)>;

    /// The length of a name as [`name_limit`](Self::name_limit) counts it.
    fn name_length(&self, name: &str) -> usize {
        name.len()
    }

    /// Signs in as `login`'s user with `password`; `which` is the credential that a refusal is about.
    async fn sign_in(&self, login: &Login<'_>, password: &str, which: Which) -> Result<Self::Session>;

    /// Says goodbye, so that the server's log has no broken connection in it.
    async fn close(&self, session: Self::Session);

    /// Gives the user of the session, who signed in with `old`, the password of `login`.
    async fn renew(
        &self,
        rotation: &Rotation<'_>,
        session: &mut Self::Session,
        login: &Login<'_>,
        old: &str,
        dual: Dual,
    ) -> Result<()>;

    /// As the administrator: makes the pending user of the pair what it is to be, and gives it its password last. Run again
    /// it repairs, and changes nothing that is right.
    async fn prepare(&self, rotation: &Rotation<'_>, admin: &mut Self::Session, pair: &Pair<'_>) -> Result<()>;

    /// As the user that signed in: does the least a client would. Changes nothing.
    async fn check(&self, session: &mut Self::Session, login: &Login<'_>, pair: Option<&str>) -> Result<()>;
}

/// Whether the old password is to stay valid beside the new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dual {
    Never,
    /// Where the server and the user's privileges allow it.
    IfAble,
    Always,
}

/// Where a sign-in goes, and as whom.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Target<'a> {
    /// What messages and certificates call the server.
    pub(crate) host: &'a str,
    /// What is looked up to find it: the same, unless another secret says where it is.
    pub(crate) at: &'a str,
    pub(crate) port: u16,
    pub(crate) database: Option<&'a str>,
    pub(crate) user: &'a str,
}

impl<'a> Target<'a> {
    fn read(profile: &Profile, fields: Exposed<'a>) -> Result<Self> {
        let port = fields.number("port", 1, 65_535)?.and_then(|port| u16::try_from(port).ok());
        let host = fields.required("host")?;
        Ok(Self {
            host,
            at: host,
            port: port.unwrap_or(profile.port),
            database: fields.optional("dbname")?.filter(|name| !name.is_empty()).or(profile.database),
            user: fields.required("username")?,
        })
    }

    /// Host and port, for messages.
    pub(crate) fn place(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// Whether a password of the one may be tried on the other.
    fn is_login_of(&self, other: &Self) -> bool {
        (self.host, self.port, self.user) == (other.host, other.port, other.user)
    }
}

/// A secret read in full: whatever is wrong with it shows before the first connection.
#[derive(Clone, Copy)]
pub(crate) struct Login<'a> {
    pub(crate) target: Target<'a>,
    pub(crate) password: &'a str,
    pub(crate) ask: Ask<'a>,
    pub(crate) trust: &'a Trust,
    pub(crate) fields: Exposed<'a>,
}

impl<'a> Login<'a> {
    /// The same user at the server of the administrator, which `elsewhere` says is another than that of this secret.
    fn at(&self, admin: &Target<'a>, elsewhere: bool) -> Self {
        let host = if elsewhere { admin.host } else { self.target.host };
        Self { target: Target { host, at: admin.host, port: admin.port, ..self.target }, ..*self }
    }
}

/// Two users that alternate, in one rotation.
pub(crate) struct Pair<'a> {
    /// The one that gets a new password.
    pub(crate) pending: &'a Login<'a>,
    /// What the two have in common: the name without the suffix.
    pub(crate) base: &'a str,
    /// The other one, which the base user is the model of.
    pub(crate) clone: &'a str,
    /// Whether rights go that only the clone has.
    pub(crate) revoke_extras: bool,
    /// Host and port of the administrator.
    pub(crate) place: String,
    /// The pending user at the administrator's server.
    proof: Login<'a>,
    versions: &'a Versions<'a>,
    profile: &'static Profile,
}

impl Pair<'_> {
    /// The user that gets a new password.
    pub(crate) fn user(&self) -> &str {
        self.pending.target.user
    }

    /// Whether it is the clone's turn.
    pub(crate) fn is_clone(&self) -> bool {
        self.user() != self.base
    }

    /// Whether the secret has proof that the pending user is its own: that AWSPREVIOUS, AWSPENDING, or a version that has lost
    /// its label signs in as it. For servers on which nothing else marks a clone. The usual proof is the first that is tried.
    pub(crate) async fn opens<E: Engine>(&self, engine: &E) -> Result<bool> {
        let pending = &self.pending.target;
        let mut earlier = self.versions.earlier();
        let mut next = earlier.previous().await?;
        let mut asked_pending = false;
        loop {
            let theirs = next.as_ref().and_then(|secret| {
                let fields = secret.expose();
                let target = Target::read(self.profile, fields).ok()?;
                if target.is_login_of(pending) { fields.required("password").ok() } else { None }
            });
            if let Some(password) = theirs
                && self.signs_in(engine, password).await?
            {
                return Ok(true);
            }
            if !asked_pending {
                asked_pending = true;
                if self.signs_in(engine, self.pending.password).await? {
                    return Ok(true);
                }
            }
            match earlier.unlabelled().await? {
                Some((_, secret)) => next = Some(secret),
                None => return Ok(false),
            }
        }
    }

    async fn signs_in<E: Engine>(&self, engine: &E, password: &str) -> Result<bool> {
        match engine.sign_in(&self.proof, password, Which::Pending).await {
            Ok(session) => {
                engine.close(session).await;
                Ok(true)
            }
            Err(error) => only_wrong_password(error).map(|_| false),
        }
    }

    /// The error for a pending user that is there and not known to be ours.
    pub(crate) fn not_ours(&self, why: &str, hint: impl Into<String>) -> Error {
        let other = if self.is_clone() { self.base } else { self.clone };
        let message = format!(
            "user {:?} exists at {} and {why}, so it is not known to be the other user of {other:?}",
            self.user(),
            self.place
        );
        Error::config(Code::Pair, message).hint(hint)
    }

    /// [`not_ours`](Self::not_ours) where nothing but passwords and rights could have shown it.
    pub(crate) fn unproven(&self) -> Error {
        let user = self.user();
        let repair = if self.is_clone() {
            format!("if they are a pair, drop user {user:?}: it is made anew; else rename one of them")
        } else {
            format!(
                "if they are a pair, make their rights alike; else rename one of them: {user:?} would get a new password"
            )
        };
        self.not_ours("no password of this secret opens it", repair)
    }

    /// The error for a base user that is not there.
    pub(crate) fn no_base(&self) -> Error {
        Error::config(Code::Pair, format!("{} has no user {:?}", self.place, self.base))
            .hint("create it, with what the application needs; its clone is made by itself")
    }
}

/// An engine as a kind.
pub(crate) struct Sql<E>(pub(crate) E);

enum Strategy<'a> {
    Single(Dual),
    Alternating(&'a str),
}

impl<E: Engine> Sql<E> {
    fn read<'a>(&self, rotation: &'a Rotation<'_>, secret: &'a Secret) -> Result<Login<'a>> {
        let fields = secret.expose();
        let ask = self.0.tls(fields)?;
        self.0.check_fields(fields)?;
        let trust = &rotation.settings.trust;
        let target = Target::read(self.0.profile(), fields)?;
        Ok(Login { target, password: fields.required("password")?, ask, trust, fields })
    }

    /// By `masterarn`, as AWS's functions; `strategy` says otherwise.
    fn strategy<'a>(&self, rotation: &Rotation<'_>, secret: &'a Secret) -> Result<Strategy<'a>> {
        let admin = admin::named(secret)?;
        let unusable = |message: &str, hint: &str| Err(Error::config(Code::Field, message).hint(hint));
        match (rotation.setting(secret, "strategy")?, admin) {
            (None | Some("alternating-users"), Some(admin)) => Ok(Strategy::Alternating(admin)),
            (None, None) if self.0.profile().dual => Ok(Strategy::Single(Dual::IfAble)),
            (None | Some("single-user"), _) => Ok(Strategy::Single(Dual::Never)),
            (Some("dual-password"), _) if self.0.profile().dual => Ok(Strategy::Single(Dual::Always)),
            (Some("dual-password"), _) => {
                unusable("field \"strategy\": this server keeps no second password", "MySQL from 8.0.14 on does")
            }
            (Some("alternating-users"), None) => unusable(
                "field \"masterarn\" is missing, which \"strategy\": \"alternating-users\" needs",
                "the ARN of the administrator's secret",
            ),
            (Some(_), _) => unusable(
                "field \"strategy\" is unknown",
                "one of `single-user`, `alternating-users`, `dual-password`; without it `masterarn` chooses alternating users",
            ),
        }
    }

    /// The other user of the pair.
    fn other(&self, settings: &Settings, user: &str) -> Result<String> {
        let base = base(user);
        if base != user {
            return Ok(base.to_owned());
        }
        let clone = format!("{user}{SUFFIX}");
        let (limit, unit) = self.0.name_limit(settings)?;
        let length = self.0.name_length(&clone);
        if length > limit {
            let message =
                format!("field \"username\" is too long for alternating users: {clone:?} has {length} {unit}");
            return Err(Error::config(Code::Field, message).hint(format!(
                "at most {} {unit}, since the other user's name ends in {SUFFIX}",
                limit.saturating_sub(SUFFIX.len())
            )));
        }
        Ok(clone)
    }

    async fn renew(
        &self,
        rotation: &Rotation<'_>,
        mut session: E::Session,
        login: &Login<'_>,
        old: &str,
        dual: Dual,
    ) -> Result<()> {
        self.0.renew(rotation, &mut session, login, old, dual).await?;
        self.0.close(session).await;
        Ok(())
    }

    async fn set_single(
        &self,
        rotation: &Rotation<'_>,
        versions: &Versions<'_>,
        pending: &Login<'_>,
        dual: Dual,
    ) -> Result<()> {
        let current = versions.current.expose().required("password")?;
        let refused = match self.0.sign_in(pending, current, Which::Current).await {
            Ok(session) => return self.renew(rotation, session, pending, current, dual).await,
            Err(error) => only_wrong_password(error)?,
        };
        match self.0.sign_in(pending, pending.password, Which::Pending).await {
            // An earlier try has set it.
            Ok(session) => {
                self.0.close(session).await;
                return Ok(());
            }
            Err(error) => drop(only_wrong_password(error)?),
        }
        let mut tried = vec!["AWSCURRENT".to_owned(), "AWSPENDING".to_owned()];
        let mut passwords = vec![SecretText::from(current.to_owned()), SecretText::from(pending.password.to_owned())];
        let mut earlier = versions.earlier();
        while let Some((label, secret)) = earlier.next().await? {
            // The old password goes to the host of the new one, and only if it was for that host and user.
            let fields = secret.expose();
            let Ok(target) = Target::read(self.0.profile(), fields) else { continue };
            let Ok(password) = fields.required("password") else { continue };
            if !target.is_login_of(&pending.target) {
                tried.push(format!("{label} (not tried: it is for another host, port or user)"));
                continue;
            }
            if passwords.iter().any(|it| it.expose() == password) {
                continue;
            }
            match self.0.sign_in(pending, password, Which::Current).await {
                Ok(session) => return self.renew(rotation, session, pending, password, dual).await,
                Err(error) => drop(only_wrong_password(error)?),
            }
            tried.push(label);
            passwords.push(SecretText::from(password.to_owned()));
        }
        Err(refused.context(&format!("no known password works (tried {})", tried.join(", "))).hint(format!(
            "an administrator can set the password of user {:?} at {} to the one in AWSCURRENT; the next try goes on from there",
            pending.target.user,
            pending.target.place()
        )))
    }

    /// Never asks first whether the pending password works: the rights are compared at every try, so that a login without
    /// them is never taken for done.
    async fn set_alternating(
        &self,
        rotation: &Rotation<'_>,
        versions: &Versions<'_>,
        pending: &Login<'_>,
        admin_arn: &str,
    ) -> Result<()> {
        let current = self.read(rotation, versions.current)?;
        let clone = format!("{}{SUFFIX}", base(pending.target.user));
        if self.other(rotation.settings, current.target.user)? != pending.target.user {
            let message =
                format!("AWSPENDING is for user {:?}, and the pair is {:?}", pending.target.user, current.target.user);
            return Err(Error::config(Code::Tampered, message));
        }
        let secret = admin::read(rotation, admin_arn).await?;
        let mut admin = self.read(rotation, &secret).map_err(|error| error.context("the administrator's secret"))?;
        let elsewhere = is_source(self.0.profile(), rotation, &current.target, &admin.target).await?;
        // Who cannot sign in as one of the two has no business changing the other. The administrator's server is asked, because
        // the host of this secret may lead its author to a server that says yes to everything.
        let proof = current.at(&admin.target, elsewhere);
        let session = self.0.sign_in(&proof, current.password, Which::Current).await?;
        self.0.close(session).await;
        admin.target.database = current.target.database;
        let session = self.0.sign_in(&admin, admin.password, Which::Admin).await;
        let mut session = session.map_err(|error| error.context("the administrator"))?;
        let pair = Pair {
            pending,
            base: base(pending.target.user),
            clone: &clone,
            revoke_extras: revokes_extras(pending.fields)?,
            place: admin.target.place(),
            proof: pending.at(&admin.target, elsewhere),
            versions,
            profile: self.0.profile(),
        };
        self.0.prepare(rotation, &mut session, &pair).await?;
        self.0.close(session).await;
        if elsewhere { self.await_replica(pending).await } else { Ok(()) }
    }

    async fn await_replica(&self, pending: &Login<'_>) -> Result<()> {
        for again in 0..REPLICA_TRIES {
            match self.0.sign_in(pending, pending.password, Which::Pending).await {
                Ok(session) => {
                    self.0.close(session).await;
                    return Ok(());
                }
                Err(error) => drop(only_wrong_password(error)?),
            }
            tokio::time::sleep(Duration::from_secs(1 << again)).await;
        }
        let message = format!("the replica {} has not received the new password yet", pending.target.place());
        Err(Error::transient(Code::NotVisible, message)
            .hint("check the replica's lag; the next try goes on from there"))
    }
}

#[async_trait]
impl<E: Engine> Kind for Sql<E> {
    fn names(&self) -> &'static [&'static str] {
        self.0.profile().names
    }

    fn summary(&self) -> &'static str {
        self.0.profile().summary
    }

    fn example(&self) -> &'static str {
        self.0.profile().example
    }

    fn fields(&self) -> &'static [Field] {
        self.0.profile().fields
    }

    fn rotates(&self, rotation: &Rotation<'_>, current: &Secret) -> Result<Vec<String>> {
        let mut fields = vec!["password".to_owned()];
        if let Strategy::Alternating(_) = self.strategy(rotation, current)? {
            fields.push("username".to_owned());
        }
        Ok(fields)
    }

    async fn create(&self, rotation: &Rotation<'_>, current: &Secret) -> Result<Secret> {
        // Everything that set and test will need, so that a broken secret fails before anything is staged.
        let login = self.read(rotation, current)?;
        login.trust.client(&login.ask)?;
        revokes_extras(login.fields)?;
        let password = rotation.settings.passwords.rules(self.0.profile().excluded)?.generate()?;
        let mut changes = vec![("password", password)];
        if let Strategy::Alternating(_) = self.strategy(rotation, current)? {
            changes.push(("username", SecretText::from(self.other(rotation.settings, login.target.user)?)));
        }
        Ok(current.with(changes))
    }

    async fn set(&self, rotation: &Rotation<'_>, versions: Versions<'_>) -> Result<()> {
        let pending = self.read(rotation, versions.pending)?;
        match self.strategy(rotation, versions.current)? {
            Strategy::Single(dual) => self.set_single(rotation, &versions, &pending, dual).await,
            Strategy::Alternating(admin) => self.set_alternating(rotation, &versions, &pending, admin).await,
        }
    }

    async fn test(&self, rotation: &Rotation<'_>, pending: &Secret) -> Result<()> {
        let login = self.read(rotation, pending)?;
        let pair = match self.strategy(rotation, pending)? {
            Strategy::Alternating(_) => Some(base(login.target.user)),
            Strategy::Single(_) => None,
        };
        let mut session = self.0.sign_in(&login, login.password, Which::Pending).await?;
        self.0.check(&mut session, &login, pair).await?;
        self.0.close(session).await;
        Ok(())
    }
}

/// The error for a server that said nothing for so long.
pub(crate) fn timed_out(place: &str, after: Duration) -> Error {
    Error::transient(Code::Timeout, format!("no answer from {place} in {} s", after.as_secs()))
}

/// The error for a server that takes no changes.
pub(crate) fn read_only(place: &str) -> Error {
    Error::config(Code::ReadOnly, format!("{place} is a read-only replica or in recovery"))
        .hint("put the name of the writer into `host`; after a failover the next try finds it")
}

/// The error for a new password that the server's policy refuses; `code` is the server's.
pub(crate) fn policy(place: &str, code: &str) -> Error {
    let message = format!("the password policy of {place} refuses the new password ({code})");
    Error::rejected(Which::Pending, Code::PasswordPolicy, message)
        .hint("set PASSWORD_LENGTH and the EXCLUDE_… variables to what the policy wants, and rotate anew")
}

fn revokes_extras(fields: Exposed<'_>) -> Result<bool> {
    match fields.optional("extras")? {
        None | Some("report") => Ok(false),
        Some("revoke") => Ok(true),
        Some(_) => Err(Error::config(Code::Field, "field \"extras\" is unknown").hint("one of `report`, `revoke`")),
    }
}

/// A wrong password lets the next candidate be tried; anything else ends the search, so that no lock is tripped.
fn only_wrong_password(error: Error) -> Result<Error> {
    if error.code() == Code::WrongPassword { Ok(error) } else { Err(error) }
}

/// The base user's name: what the two have in common.
fn base(user: &str) -> &str {
    user.strip_suffix(SUFFIX).filter(|base| !base.is_empty()).unwrap_or(user)
}

/// The administrator's password must not change another server than the one the secret is for. `true` is another server
/// after all: the one that feeds it.
async fn is_source(profile: &Profile, rotation: &Rotation<'_>, of: &Target<'_>, admin: &Target<'_>) -> Result<bool> {
    if of.port == admin.port && same_machine(of.host, admin.host).await {
        return Ok(false);
    }
    if profile.replicas && of.host != admin.host && rotation.services.replicates(of.host, admin.host).await? {
        return Ok(true);
    }
    let message = format!("the administrator's secret is for {}, and this secret for {}", admin.place(), of.place());
    Err(Error::config(Code::Admin, message).hint("name the secret of this server's administrator in `masterarn`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_base_user_is_the_name_without_the_suffix() {
        for (user, expected) in [("app", "app"), ("app_clone", "app"), ("App_CLONE", "App_CLONE"), ("_clone", "_clone")]
        {
            assert_eq!(base(user), expected);
        }
    }
}
