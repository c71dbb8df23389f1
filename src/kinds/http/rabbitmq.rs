//! Users of RabbitMQ: told by the management API, proven by a sign-in with AMQP, because the management API is for users
//! with a tag alone.
//!
//! A user has one password. With `alternate_username` two users take turns: the one in use is the model, and the other gets
//! its tags and permissions before its new password, so that "it may sign in" is never taken for "it is complete".

use async_trait::async_trait;
use serde_json::{Value, json};

use super::recipe::Recipe;
use super::send::Asked;
use super::template::{Context, object, to_jinja};
use super::turn::Turn;
use crate::amqp::{PORT, sign_in};
use crate::error::{Code, Error, Result};
use crate::kind::{Field, Kind, Rotation, Versions};
use crate::net::same_machine;
use crate::secret::{Exposed, Secret};
use crate::tls::{SSL, SSLCERT, SSLKEY, SSLMODE, SSLROOTCERT};
use crate::wire::Place;

/// A user of RabbitMQ.
pub(in crate::kinds) struct RabbitMq;

const USERNAME: &str = "username";
const PASSWORD: &str = "password";
const OTHER: &str = "alternate_username";

const FIELDS: &[Field] = &[
    Field::setting("engine", "`rabbitmq`; without it, `kind` or a tag must name the kind"),
    Field::required("host", "where clients sign in with AMQP"),
    Field::optional("port", "5671", "a number, or text with digits; 5671 is with TLS").number(),
    Field::optional("vhost", "/", "the virtual host that the new password is tried with"),
    Field::required(USERNAME, "the user"),
    Field::required(PASSWORD, "the password"),
    Field::setting(
        OTHER,
        "another user, which takes turns with this one and gets its tags and permissions; without it there is one, whose old password ends with the change",
    ),
    Field::setting(
        "masterarn",
        "ARN of the secret of a user with the tag `administrator`; also `adminarn`. It has `url`, such as `https://mq.example.com:15671`, `username` and `password`",
    ),
    Field::setting(
        "network",
        "`public` (the default), or `private`, which allows the management API to have a private address, or http",
    ),
    SSLMODE,
    SSL,
    SSLROOTCERT,
    SSLCERT,
    SSLKEY,
];

/// What the requests have in common; the fields and the value are those of the kind.
const RECIPE: &str = r#"
summary = "a user of RabbitMQ"
class = "chosen"
auth = { basic = ["{{ admin.username }}", "{{ admin.password }}"] }
[fields]
password = { doc = "the password", rotated = true }
username = { doc = "the user", required = true, rotated = true }
host = { doc = "the host", required = true }
[admin]
url = "the URL of the management API"
username = "a user with the tag `administrator`"
password = "its password"
[alternate]
field = "username"
[choose]
password = { characters = "password" }
[set]
method = "PUT"
url = "{{ admin.url }}/api/users/{{ user }}"
json = { password = "{{ secret.password }}", tags = "{{ tags }}" }
[verify]
method = "GET"
url = "{{ admin.url }}/api/whoami"
"#;

/// The two sorts of permissions, in paths of the API, and by what one of them is known within a virtual host.
const PERMISSIONS: [(&str, &[&str]); 2] =
    [("permissions", &["configure", "write", "read"]), ("topic-permissions", &["exchange", "write", "read"])];

fn recipe() -> Result<Recipe> {
    Recipe::read(RECIPE, true).map_err(|why| Error::new(crate::error::Class::Internal, Code::Recipe, why))
}

#[async_trait]
impl Kind for RabbitMq {
    fn names(&self) -> &'static [&'static str] {
        &["rabbitmq"]
    }

    fn summary(&self) -> &'static str {
        "the password of a RabbitMQ user; of two users that take turns, the old one's stays valid until the next rotation"
    }

    fn example(&self) -> &'static str {
        r#"{"engine":"rabbitmq","host":"mq.example.com","port":5671,"vhost":"/","username":"app","password":"…","alternate_username":"app_b","masterarn":"arn:aws:secretsmanager:…"}"#
    }

    fn fields(&self) -> &'static [Field] {
        FIELDS
    }

    fn rotates(&self, _rotation: &Rotation<'_>, current: &Secret) -> Result<Vec<String>> {
        // With one user its name stays.
        let names: &[&str] =
            if current.expose().filled(OTHER)?.is_some() { &[PASSWORD, USERNAME, OTHER] } else { &[PASSWORD] };
        Ok(names.iter().map(|&name| name.to_owned()).collect())
    }

    async fn create(&self, rotation: &Rotation<'_>, current: &Secret) -> Result<Secret> {
        place(rotation, current.expose())?;
        recipe()?.create(rotation, current).await
    }

    async fn set(&self, rotation: &Rotation<'_>, versions: Versions<'_>) -> Result<()> {
        let pending = versions.pending;
        let fields = pending.expose();
        let recipe = recipe()?;
        let turn = Turn::new(&recipe, rotation, &[pending, versions.current]).await?;
        let api = Api { turn: &turn, pending };
        api.check_host(fields.required("host")?).await?;
        let user = fields.required(USERNAME)?;
        let model = fields.filled(OTHER)?.unwrap_or(user);
        let Some(found) = api.read("users/{{ user }}", model).await? else {
            return Err(Error::config(Code::Field, format!("RabbitMQ has no user {model:?}"))
                .hint("fields \"username\" and \"alternate_username\" name users; the one in use must be there"));
        };
        let tags = found.get("tags").cloned().unwrap_or_default();
        rotation.changing();
        if model != user {
            if api.read("users/{{ user }}", user).await?.is_none() {
                // Without a password nobody can sign in.
                api.write("PUT", "users/{{ user }}", user, &json!({"password_hash": "", "tags": ""})).await?;
            }
            for (sort, parts) in PERMISSIONS {
                api.copy(sort, parts, model, user).await?;
            }
        }
        // Tags that are not sent are taken away.
        let body = json!({"password": fields.required(PASSWORD)?, "tags": tags});
        api.write("PUT", "users/{{ user }}", user, &body).await?;
        self.test(rotation, pending).await
    }

    async fn test(&self, rotation: &Rotation<'_>, pending: &Secret) -> Result<()> {
        let fields = pending.expose();
        let vhost = fields.filled("vhost")?.unwrap_or("/");
        sign_in(&place(rotation, fields)?, fields.required(USERNAME)?, fields.required(PASSWORD)?, vhost).await
    }
}

fn place<'a>(rotation: &'a Rotation<'_>, fields: Exposed<'a>) -> Result<Place<'a>> {
    Place::of(fields, PORT, &rotation.settings.trust)
}

/// The management API, as the administrator sees it.
struct Api<'a> {
    turn: &'a Turn<'a>,
    pending: &'a Secret,
}

impl Api<'_> {
    /// The author of another secret must not have a user's password changed here and proven elsewhere.
    async fn check_host(&self, host: &str) -> Result<()> {
        let admin = self.turn.session.admin.as_ref().and_then(|it| it.expose().value("url")?.as_str());
        let url = admin.and_then(|it| it.parse::<http::Uri>().ok());
        let there = url.as_ref().and_then(http::Uri::host).unwrap_or_default();
        if same_machine(there, host).await {
            return Ok(());
        }
        Err(Error::config(Code::Admin, format!("the administrator's secret is for {there}, not {host}"))
            .hint("name a secret for the same server in `masterarn`"))
    }

    fn context(&self, user: &str, vhost: &str) -> Result<Context> {
        let more = vec![("user", Context::from(user)), ("vhost", Context::from(vhost))];
        self.turn.context(self.pending, more)
    }

    /// `None` for what is not there.
    async fn read(&self, path: &str, user: &str) -> Result<Option<Value>> {
        let request = json!({"method": "GET", "url": format!("{{{{ admin.url }}}}/api/{path}")});
        let asked = Asked { name: path, request: &request, which: self.turn.which() };
        let answer = self.turn.session.ask(asked, &self.context(user, "/")?, &[404]).await?;
        answer.map(|it| it.json()).transpose()
    }

    async fn write(&self, method: &str, path: &str, user: &str, body: &Value) -> Result<()> {
        let url = format!("{{{{ admin.url }}}}/api/{path}");
        let mut request = json!({"method": method, "url": url});
        let mut context = self.context(user, body.get("vhost").and_then(Value::as_str).unwrap_or("/"))?;
        if method == "PUT" {
            // Values go in by name: what looks like a template in one is none.
            let fields = body.as_object().into_iter().flatten();
            let body: serde_json::Map<_, _> =
                fields.clone().map(|(name, _)| (name.clone(), json!(format!("{{{{ body.{name} }}}}")))).collect();
            request["json"] = Value::Object(body);
            let values = fields.map(|(name, value)| (name.clone(), to_jinja(value)));
            context = object([
                ("body".to_owned(), object(values)),
                ("user".to_owned(), Context::from(user)),
                ("admin".to_owned(), context.get_attr("admin").unwrap_or_default()),
                ("vhost".to_owned(), context.get_attr("vhost").unwrap_or_default()),
            ]);
        }
        let asked = Asked { name: path, request: &request, which: self.turn.which() };
        self.turn.session.ask(asked, &context, &[404]).await.map(drop)
    }

    /// Gives `user` the permissions of `model`, and no other.
    async fn copy(&self, sort: &str, parts: &[&str], model: &str, user: &str) -> Result<()> {
        let list = format!("users/{{{{ user }}}}/{sort}");
        let known = |all: Option<Value>| -> Vec<Value> {
            let all = all.and_then(|it| it.as_array().cloned()).unwrap_or_default();
            all.iter()
                .map(|it| parts.iter().chain([&"vhost"]).map(|part| ((*part).to_owned(), it[*part].clone())).collect())
                .collect()
        };
        let wanted = known(self.read(&list, model).await?);
        let there = known(self.read(&list, user).await?);
        let path = format!("{sort}/{{{{ vhost }}}}/{{{{ user }}}}");
        // All of a virtual host's go at once.
        let odd = |it: &&Value| {
            !wanted.contains(it) && !wanted.iter().any(|other| sort == "permissions" && other["vhost"] == it["vhost"])
        };
        for permission in there.iter().filter(odd) {
            self.write("DELETE", &path, user, permission).await?;
        }
        for permission in &wanted {
            self.write("PUT", &path, user, permission).await?;
        }
        Ok(())
    }
}
