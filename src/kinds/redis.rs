//! Users of Redis and Valkey, by their ACLs. A user may have several passwords, so the old one stays valid until the next
//! rotation. ACLs are not replicated: every node is told, the cluster's or the master's and its replicas'.

use async_trait::async_trait;
use data_encoding::HEXLOWER;
use ring::digest::{SHA256, digest};

use crate::admin;
use crate::error::{Code, Error, Result, Which};
use crate::kind::{Field, Kind, Rotation, Versions};
use crate::net::same_machine;
use crate::resp::{Failure, PORT, Reply, Session};
use crate::secret::{Exposed, Secret};
use crate::tls::{SSL, SSLCERT, SSLKEY, SSLMODE, SSLROOTCERT};
use crate::wire::Place;

/// A user of Redis or Valkey.
pub(super) struct Redis;

const PASSWORD: &str = "password";

const FIELDS: &[Field] = &[
    Field::setting("engine", "`redis` or `valkey`; without it, `kind` or a tag must name the kind"),
    Field::required("host", "a node: of a cluster any, behind Sentinels one that has the data and no Sentinel"),
    Field::optional("port", "6379", "a number, or text with digits").number(),
    Field::required("username", "the user; `default` is the one that clients are who name none"),
    Field::required(PASSWORD, "the password"),
    Field::setting(
        "masterarn",
        "ARN of the secret of a user who may set passwords; also `adminarn`. Without it the user must be allowed to itself",
    ),
    SSLMODE,
    SSL,
    SSLROOTCERT,
    SSLCERT,
    SSLKEY,
];

/// Besides what AWS's functions leave out, what has a meaning in a `redis://` URL.
const EXCLUDED: &str = "/@\"'\\:#?%";

#[async_trait]
impl Kind for Redis {
    fn names(&self) -> &'static [&'static str] {
        &["redis", "valkey"]
    }

    fn summary(&self) -> &'static str {
        "the password of an ACL user of Redis or Valkey, on every node; the old one stays valid until the next rotation"
    }

    fn example(&self) -> &'static str {
        r#"{"engine":"redis","host":"cache.example.com","port":6379,"username":"app","password":"…","masterarn":"arn:aws:secretsmanager:…"}"#
    }

    fn fields(&self) -> &'static [Field] {
        FIELDS
    }

    fn rotates(&self, _rotation: &Rotation<'_>, _current: &Secret) -> Result<Vec<String>> {
        Ok(vec![PASSWORD.to_owned()])
    }

    async fn create(&self, rotation: &Rotation<'_>, current: &Secret) -> Result<Secret> {
        Login::read(rotation, current)?;
        admin::named(current)?;
        let password = rotation.settings.passwords.rules(EXCLUDED)?.generate()?;
        Ok(current.with(vec![(PASSWORD, password)]))
    }

    async fn set(&self, rotation: &Rotation<'_>, versions: Versions<'_>) -> Result<()> {
        let (current, pending) = (Login::read(rotation, versions.current)?, Login::read(rotation, versions.pending)?);
        let change = Change { rotation, user: pending.user, current: current.password, pending: pending.password };
        if let Some(arn) = admin::named(versions.pending)? {
            let secret = admin::read(rotation, arn).await?;
            let admin = Login::read(rotation, &secret)
                .map_err(|error| error.reclassify(crate::error::Class::Config).context("the administrator's secret"))?;
            if admin.place.port != pending.place.port || !same_machine(admin.place.host, pending.place.host).await {
                let message =
                    format!("the administrator's secret is for {}, not {}", admin.place.name(), pending.place.name());
                return Err(
                    Error::config(Code::Admin, message).hint("name a secret for the same server in `masterarn`")
                );
            }
            let session = admin.open(Which::Admin).await.map_err(|error| error.context("the administrator"))?;
            return change.on_every_node(&admin, Which::Admin, session).await;
        }
        // In the usual rotation the current password signs in, and after a crash too: it is kept.
        match current.open(Which::Current).await {
            Ok(session) => change.on_every_node(&current, Which::Current, session).await,
            Err(error) if error.is_rejected() => {
                let session = pending.open(Which::Current).await?;
                change.on_every_node(&pending, Which::Current, session).await
            }
            Err(error) => Err(error),
        }
    }

    async fn test(&self, rotation: &Rotation<'_>, pending: &Secret) -> Result<()> {
        let mut session = Login::read(rotation, pending)?.open(Which::Pending).await?;
        match session.run(&["PING"]).await {
            // Who may sign in and not PING is one who was given little.
            Ok(_) => Ok(()),
            Err(Failure::Code(code)) if code == "NOPERM" => Ok(()),
            Err(failure) => Err(session.explain(failure, "PING")),
        }
    }
}

/// A secret read in full.
struct Login<'a> {
    place: Place<'a>,
    user: &'a str,
    password: &'a str,
}

impl<'a> Login<'a> {
    fn read(rotation: &'a Rotation<'_>, secret: &'a Secret) -> Result<Self> {
        let fields: Exposed<'a> = secret.expose();
        let place = Place::of(fields, PORT, &rotation.settings.trust)?;
        Ok(Self { place, user: fields.required("username")?, password: fields.required(PASSWORD)? })
    }

    async fn open(&self, which: Which) -> Result<Session> {
        let mut session = Session::open(&self.place).await?;
        session.sign_in(self.user, self.password, which).await?;
        Ok(session)
    }
}

/// One new password, for every node.
struct Change<'a> {
    rotation: &'a Rotation<'a>,
    user: &'a str,
    current: &'a str,
    pending: &'a str,
}

impl Change<'_> {
    /// `session` is one at the node that `by` names; the others are asked of it. Both passwords work wherever this gets to, so
    /// that it may stop anywhere and begin anew.
    async fn on_every_node(&self, by: &Login<'_>, which: Which, mut session: Session) -> Result<()> {
        let others = others(&mut session, by.place.host).await?;
        let mut forgetful = self.on(&mut session).await?;
        let mut nodes = vec![(by.place.host.to_owned(), by.place.port)];
        for (host, port) in others {
            let node = Login { place: Place { host: &host, port, ..by.place }, ..*by };
            let reached = async {
                let mut session = node.open(which).await?;
                // The node that was asked may be among those that it names.
                self.on(&mut session).await
            };
            let context = || format!("of the nodes that {} names", by.place.name());
            forgetful |= reached.await.map_err(|error: Error| error.context(&context()))?;
            nodes.push((host, port));
        }
        for (host, port) in &nodes {
            let place = Place { host, port: *port, ..by.place };
            let proof = Login { place, user: self.user, password: self.pending };
            proof.open(Which::Pending).await?;
        }
        if forgetful {
            self.rotation.note(
                "the new password is in memory only, because ACL SAVE fails, as without an `aclfile`: a restart brings back the old ones"
                    .to_owned(),
            );
        }
        Ok(())
    }

    /// Returns whether a restart of the node would forget it.
    async fn on(&self, session: &mut Session) -> Result<bool> {
        let user = self.user;
        let place = session.place().to_owned();
        let found = session.run(&["ACL", "GETUSER", user]).await;
        let found = found.map_err(|failure| session.explain(failure, "ACL GETUSER"))?;
        let of = |name: &'static str| {
            let pairs = found.items().chunks_exact(2);
            pairs.filter(move |pair| pair[0].text() == name).flat_map(|pair| pair[1].items()).map(Reply::text)
        };
        if found.items().is_empty() {
            return Err(Error::config(Code::Pair, format!("{place} has no user {user:?}"))
                .hint("give every node the same users: ACLs are not replicated"));
        }
        if of("flags").any(|flag| flag == "nopass") {
            return Err(Error::config(Code::NotPermitted, format!("{place} lets user {user:?} in with any password"))
                .hint("give the user a password with `ACL SETUSER`, once its clients have it"));
        }
        if of("flags").any(|flag| flag == "off") {
            return Err(Error::config(Code::NotPermitted, format!("user {user:?} is switched off at {place}"))
                .hint("`ACL SETUSER … on`, or end the rotation of this secret"));
        }
        // Hashes, so that no log, no MONITOR and no list of slow commands can hold the password.
        let [pending, current] =
            [self.pending, self.current].map(|it| HEXLOWER.encode(digest(&SHA256, it.as_bytes()).as_ref()));
        // A current password that somebody has taken away stays away.
        let mut wanted = vec![pending.as_str()];
        wanted.extend(of("passwords").find(|it| *it == current && *it != pending));
        let mut there: Vec<&str> = of("passwords").collect();
        let mut sorted = wanted.clone();
        there.sort_unstable();
        sorted.sort_unstable();
        if there != sorted {
            let hashes: Vec<String> = wanted.iter().map(|hash| format!("#{hash}")).collect();
            let mut command = vec!["ACL", "SETUSER", user, "resetpass"];
            command.extend(hashes.iter().map(String::as_str));
            self.rotation.changing();
            let told = session.run(&command).await;
            told.map_err(|failure| {
                if let Failure::Code(_) = failure {
                    self.rotation.unchanged();
                }
                session.explain(failure, "ACL SETUSER")
            })?;
        }
        // Also when there was nothing to change: an earlier try may have ended before this.
        match session.run(&["ACL", "SAVE"]).await {
            Ok(_) => Ok(false),
            Err(Failure::Code(code)) if code == "ERR" => Ok(true),
            Err(failure) => Err(session.explain(failure, "ACL SAVE")),
        }
    }
}

/// The other nodes: of the cluster, or of the master and its replicas.
async fn others(session: &mut Session, host: &str) -> Result<Vec<(String, u16)>> {
    match session.run(&["CLUSTER", "NODES"]).await {
        Ok(nodes) => return Ok(nodes.text().lines().filter_map(|line| node(line, host)).collect()),
        // Cluster support is off.
        Err(Failure::Code(code)) if code == "ERR" => {}
        Err(failure) => return Err(session.explain(failure, "CLUSTER NODES")),
    }
    let role = session.run(&["ROLE"]).await.map_err(|failure| session.explain(failure, "ROLE"))?;
    let items = role.items();
    let address = |host: &Reply, port: &Reply| Some((host.text().to_owned(), port.text().parse().ok()?));
    match items.first().map(Reply::text) {
        Some("master") => {
            let replicas = items.get(2).map(Reply::items).unwrap_or_default();
            Ok(replicas.iter().filter_map(|it| address(it.items().first()?, it.items().get(1)?)).collect())
        }
        Some("slave") => {
            let master = items.get(1).zip(items.get(2)).and_then(|(host, port)| address(host, port));
            let (host, port) = master.unwrap_or_default();
            Err(Error::config(Code::ReadOnly, format!("{} is a replica of {host}:{port}", session.place()))
                .hint("put the name of the master into `host`: it knows all of its replicas"))
        }
        Some("sentinel") => Err(Error::config(Code::Field, format!("{} is a Sentinel", session.place()))
            .hint("put a server that has the data into `host`")),
        _ => Err(Error::transient(Code::Server, format!("the answer of {} to ROLE cannot be read", session.place()))),
    }
}

/// One line of CLUSTER NODES: `id ip:port@cport,hostname flags …`; those that are not the node that was asked.
fn node(line: &str, asked: &str) -> Option<(String, u16)> {
    let mut words = line.split(' ').skip(1);
    let (address, flags) = (words.next()?, words.next()?);
    if flags.split(',').any(|flag| matches!(flag, "myself" | "noaddr" | "handshake")) {
        return None;
    }
    let (address, name) = address.split_once(',').unwrap_or((address, ""));
    let (host, port) = address.split('@').next()?.rsplit_once(':')?;
    let name = name.split(',').next().unwrap_or_default();
    let host = [name, host].into_iter().find(|it| !it.is_empty() && *it != "?").unwrap_or(asked);
    Some((host.to_owned(), port.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::node;

    #[test]
    fn nodes_are_read_by_name_where_they_have_one() {
        let at = |host: &str, port| Some((host.to_owned(), port));
        for (line, expected) in [
            ("07c3 10.0.0.1:6379@16379 master - 0 0 1 connected 0-5460", at("10.0.0.1", 6379)),
            ("07c3 10.0.0.1:6379@16379,a.example slave x 0 0 1 connected", at("a.example", 6379)),
            ("07c3 10.0.0.1:6379@16379,,shard-id=1 master,fail - 0 0 1 connected", at("10.0.0.1", 6379)),
            ("07c3 ::1:6379@16379 master - 0 0 1 connected", at("::1", 6379)),
            ("07c3 :6379@16379 master - 0 0 1 connected", at("asked", 6379)),
            ("07c3 10.0.0.1:6379@16379 myself,master - 0 0 1 connected", None),
            ("07c3 :0@0 master,noaddr - 0 0 1 disconnected", None),
            ("", None),
        ] {
            assert_eq!(node(line, "asked"), expected, "{line}");
        }
    }
}
