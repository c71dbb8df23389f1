//! A strict stand-in for a service with an HTTP API, made of the `[[exchange]]` of its recipe: what the vendor documents, and
//! nothing else, is understood. It keeps keys, slots or users as the recipe's class says.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use data_encoding::BASE64;
use keywheel_dev::authority::Authority;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Map, Value, json};
use tempfile::TempDir;

use super::aws::{Asked, read};

/// What goes wrong with a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// It is handled, and the answer is lost.
    LoseAfter,
    /// It is not handled, and there is no answer.
    LoseBefore,
    /// This status and these headers, and nothing is done.
    Say(u16, Vec<(&'static str, String)>, String),
    /// Handled as ever, and answered with this.
    Body(String),
    /// Handled as ever, and later.
    Slow(Duration),
}

/// A key that is valid, or was made inactive.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LiveKey {
    pub id: String,
    pub name: String,
    /// By placeholder: `key`, `key2`, `user`.
    pub parts: BTreeMap<String, String>,
    pub active: bool,
    /// As RFC 3339.
    pub created: String,
}

#[derive(Default)]
struct State {
    keys: Vec<LiveKey>,
    /// What two slots hold, or the passwords of users.
    places: BTreeMap<String, String>,
    made: usize,
    mismatches: Vec<String>,
    log: Vec<String>,
    faults: Vec<(String, Fault)>,
    most: usize,
}

struct Exchange {
    of: String,
    said: Value,
    url: http::Uri,
}

struct Inner {
    recipe: Value,
    exchanges: Vec<Exchange>,
    state: Mutex<State>,
    open: AtomicUsize,
    tls: Arc<rustls::ServerConfig>,
}

/// The stand-in. It serves until the process ends.
pub struct Vendor {
    inner: Arc<Inner>,
    address: SocketAddr,
    folder: TempDir,
}

const PLACEHOLDERS: [&str; 13] =
    ["key", "key2", "id", "#id", "name", "slot", "user", "access", "date", "timestamp", "epoch", "count", "owner"];

impl Vendor {
    /// `text` is the recipe.
    pub fn start(text: &str) -> Self {
        let recipe: Value = toml::from_str(text).unwrap();
        let all = match &recipe["exchange"] {
            Value::Array(all) => all.clone(),
            one => vec![one.clone()],
        };
        let exchanges: Vec<_> = all
            .into_iter()
            .map(|said| Exchange {
                of: said["of"].as_str().unwrap().to_owned(),
                url: escaped(said["request"]["url"].as_str().unwrap()).parse().unwrap(),
                said,
            })
            .collect();
        let mut names: Vec<_> = exchanges.iter().map(|it| it.url.host().unwrap().to_owned()).collect();
        names.sort();
        names.dedup();
        let authority = Authority::new(&names, false).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("root.crt"), &authority.root).unwrap();
        let chain = vec![CertificateDer::from_pem_slice(authority.certificate.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(authority.key.as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let tls = tls.with_no_client_auth().with_single_cert(chain, key).unwrap();
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let inner = Inner { recipe, exchanges, state: Mutex::default(), open: AtomicUsize::new(0), tls: Arc::new(tls) };
        inner.begin();
        let inner = Arc::new(inner);
        let serving = Arc::clone(&inner);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let inner = Arc::clone(&serving);
                inner.open.fetch_add(1, Ordering::SeqCst);
                std::thread::spawn(move || {
                    inner.connection(stream.unwrap());
                    inner.open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self { inner, address, folder }
    }

    /// For the settings: where every host of the exchanges is.
    pub fn hosts(&self) -> BTreeMap<String, SocketAddr> {
        let place = |it: &Exchange| format!("{}:{}", it.url.host().unwrap(), it.url.port_u16().unwrap_or(443));
        self.inner.exchanges.iter().map(|it| (place(it), self.address)).collect()
    }

    /// The certificate of its authority.
    pub fn root(&self) -> PathBuf {
        self.folder.path().join("root.crt")
    }

    /// As at first.
    pub fn reset(&self) {
        *self.inner.state.lock().unwrap() = State::default();
        self.inner.begin();
    }

    /// A request `of` this kind goes wrong, once for each time that this is said.
    pub fn fault(&self, of: &str, fault: Fault) {
        self.inner.state.lock().unwrap().faults.push((of.to_owned(), fault));
    }

    pub fn no_faults(&self) {
        self.inner.state.lock().unwrap().faults.clear();
    }

    /// What was asked, by its name in the recipe.
    pub fn log(&self) -> Vec<String> {
        self.inner.state.lock().unwrap().log.clone()
    }

    /// What was asked that no exchange documents.
    pub fn mismatches(&self) -> Vec<String> {
        self.inner.state.lock().unwrap().mismatches.clone()
    }

    pub fn keys(&self) -> Vec<LiveKey> {
        self.inner.state.lock().unwrap().keys.clone()
    }

    /// As many keys as there were at one time.
    pub fn most(&self) -> usize {
        self.inner.state.lock().unwrap().most
    }

    /// A key that a person has made.
    pub fn add_key(&self, key: &str, id: &str) {
        let parts = BTreeMap::from([("key".to_owned(), key.to_owned())]);
        let made = LiveKey { id: id.to_owned(), name: "by hand".to_owned(), parts, active: true, created: now() };
        self.inner.state.lock().unwrap().keys.push(made);
    }

    /// Gives the key with this id another name.
    pub fn rename(&self, id: &str, name: &str) {
        let mut state = self.inner.state.lock().unwrap();
        state.keys.iter_mut().filter(|key| key.id == id).for_each(|key| name.clone_into(&mut key.name));
    }

    /// Deletes the key of a secret.
    pub fn forget(&self, secret: &Value) {
        let key = self.inner.parts(secret).remove("key");
        self.inner.state.lock().unwrap().keys.retain(|it| it.parts.get("key") != key.as_ref());
    }

    /// Whether a secret's credential is valid.
    pub fn accepts(&self, secret: &Value) -> bool {
        let parts = self.inner.parts(secret);
        self.inner.valid(&self.inner.state.lock().unwrap(), &parts)
    }

    /// Waits until what was on its way has arrived and is done.
    pub async fn settle(&self) {
        let last = TcpStream::connect(self.address).unwrap();
        last.shutdown(Shutdown::Write).unwrap();
        drop(last);
        // Connections are accepted in the order in which they were made; this one counts until it has ended.
        tokio::time::sleep(Duration::from_millis(1)).await;
        while self.inner.open.load(Ordering::SeqCst) > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// A URL in which placeholders stand.
fn escaped(url: &str) -> String {
    url.replace('<', "%3C").replace('>', "%3E").replace('#', "%23")
}

fn unescaped(text: &str) -> String {
    text.replace("%3C", "<").replace("%3E", ">").replace("%23", "#")
}

fn decoded(text: &str) -> String {
    form_urlencoded::parse(format!("x={}", text.replace('+', "%2B")).as_bytes()).next().unwrap().1.into_owned()
}

type Bound = BTreeMap<String, String>;
/// Status, headers and body.
type Answer = (u16, Vec<(&'static str, String)>, String);

/// Whether `text` is as `pattern` says; placeholders are bound to what stands in their place.
fn matches(pattern: &str, text: &str, bound: &mut Bound) -> bool {
    let Some((start, length, name)) = placeholder(pattern) else { return pattern == text };
    let Some(rest) = text.strip_prefix(&pattern[..start]) else { return false };
    let after = &pattern[start + length..];
    let literal = &after[..placeholder(after).map_or(after.len(), |(at, ..)| at)];
    let end = if literal.is_empty() { Some(rest.len()) } else { rest.find(literal) };
    let Some(value) = end.map(|end| &rest[..end]).filter(|it| !it.is_empty()) else { return false };
    let name = name.trim_start_matches('#');
    match bound.get(name) {
        Some(other) if other != value && !["date", "timestamp", "epoch"].contains(&name) => return false,
        _ => drop(bound.insert(name.to_owned(), value.to_owned())),
    }
    matches(after, &rest[value.len()..], bound)
}

/// Where the next placeholder is, how long, and its name.
fn placeholder(pattern: &str) -> Option<(usize, usize, &str)> {
    let mut from = 0;
    while let Some(at) = pattern[from..].find('<') {
        let start = from + at;
        let end = pattern[start..].find('>')? + start;
        let name = &pattern[start + 1..end];
        if PLACEHOLDERS.contains(&name) || name.starts_with("key:") {
            return Some((start, end + 1 - start, name));
        }
        from = start + 1;
    }
    None
}

fn matches_json(pattern: &Value, value: &Value, bound: &mut Bound) -> bool {
    match (pattern, value) {
        (Value::String(pattern), Value::String(text)) => matches(pattern, text, bound),
        (Value::String(pattern), Value::Number(number)) if pattern.starts_with('<') => {
            matches(pattern, &number.to_string(), bound)
        }
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| matches_json(left, right, bound))
        }
        (Value::Object(left), Value::Object(right)) => {
            left.len() == right.len()
                && left.iter().all(|(name, it)| right.get(name).is_some_and(|other| matches_json(it, other, bound)))
        }
        (left, right) => left == right,
    }
}

/// `pattern` with what is bound in place of the placeholders.
fn fill(pattern: &Value, bound: &Bound, each: &[Value]) -> Value {
    match pattern {
        Value::String(text) => {
            if text == "<#id>" {
                return bound.get("id").and_then(|it| it.parse::<i64>().ok()).map_or(Value::Null, Value::from);
            }
            let mut text = text.clone();
            while let Some((start, length, name)) = placeholder(&text) {
                let value = bound.get(name).cloned().unwrap_or_else(|| format!("no-{name}").replace(':', "-"));
                text.replace_range(start..start + length, &value);
            }
            Value::String(text)
        }
        Value::Array(items) if items.iter().any(|it| it == "<each>") => Value::Array(each.to_vec()),
        Value::Array(items) => items.iter().map(|it| fill(it, bound, each)).collect(),
        Value::Object(fields) => {
            fields.iter().map(|(name, it)| (name.clone(), fill(it, bound, each))).collect::<Map<_, _>>().into()
        }
        other => other.clone(),
    }
}

impl Inner {
    fn class(&self) -> &str {
        self.recipe["class"].as_str().unwrap()
    }

    fn coexists(&self) -> bool {
        self.recipe["coexist"] == true
    }

    /// Whether keys are things of their own, with ids and names.
    fn has_keys(&self) -> bool {
        matches!(self.class(), "minted" | "in-place" | "staged") || self.coexists()
    }

    /// Which field of the secret a placeholder stands for.
    fn fields(&self) -> BTreeMap<&'static str, String> {
        let rotated = self.recipe["fields"].as_object().unwrap().iter().filter(|(_, it)| it["rotated"] == true);
        let rotated: Vec<_> = rotated.map(|(name, _)| name.clone()).collect();
        let alternate = self.recipe["alternate"]["field"].as_str().unwrap_or_default();
        let mut fields = BTreeMap::from([("key", rotated[0].clone())]);
        if alternate.is_empty() {
            let user = self.recipe["fields"].as_object().unwrap().keys().find(|it| it.contains("user"));
            fields.extend(user.filter(|_| !self.has_keys()).map(|it| ("user", it.clone())));
        } else {
            fields.insert("user", alternate.to_owned());
        }
        let revoke = match &self.recipe["revoke"] {
            Value::Array(all) => &all[0],
            one => one,
        };
        let id = revoke["id"].as_str().map(str::to_owned);
        let id = id.or_else(|| rotated.get(1).filter(|_| self.recipe["list"].get("match").is_none()).cloned());
        let second =
            rotated[1..].iter().find(|it| self.recipe["choose"].get(*it).is_some() && Some(*it) != id.as_ref());
        fields.extend(second.map(|it| ("key2", it.clone())));
        fields.extend(id.map(|it| ("id", it)));
        fields
    }

    fn parts(&self, secret: &Value) -> Bound {
        let text = |name: &String| match &secret[name] {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        };
        self.fields().iter().filter_map(|(part, name)| Some(((*part).to_owned(), text(name)?))).collect()
    }

    /// The credential of the example is valid.
    fn begin(&self) {
        let parts = self.parts(&self.recipe["example"]);
        let mut state = self.state.lock().unwrap();
        if self.has_keys() {
            let id = parts.get("id").cloned().unwrap_or_else(|| "1".to_owned());
            let created = "2026-01-01T00:00:00Z".to_owned();
            state.keys.push(LiveKey { id, name: "made by hand".to_owned(), parts, active: true, created });
            return;
        }
        let place = parts.get("user").cloned().unwrap_or_default();
        if let Some(slots) = self.recipe["alternate"]["values"].as_array() {
            for slot in slots {
                state.places.insert(slot.as_str().unwrap().to_owned(), format!("old-of-{}", slot.as_str().unwrap()));
            }
        }
        state.places.insert(place, parts["key"].clone());
    }

    fn valid(&self, state: &State, parts: &Bound) -> bool {
        let Some(key) = parts.get("key") else { return true };
        if self.has_keys() {
            return state.keys.iter().any(|it| {
                it.active
                    && it.parts.get("key") == Some(key)
                    && parts.get("key2").is_none_or(|key2| it.parts.get("key2") == Some(key2))
            });
        }
        match parts.get("user").filter(|_| self.recipe["alternate"].get("values").is_none()) {
            Some(user) => state.places.get(user) == Some(key),
            None => state.places.values().any(|it| it == key),
        }
    }

    fn connection(&self, stream: TcpStream) -> Option<()> {
        stream.set_read_timeout(Some(Duration::from_secs(20))).ok()?;
        let connection = rustls::ServerConnection::new(Arc::clone(&self.tls)).ok()?;
        let mut stream = rustls::StreamOwned::new(connection, stream);
        self.serve(&mut stream)
    }

    /// One request, if one comes.
    fn serve(&self, stream: &mut (impl Read + Write)) -> Option<()> {
        let asked = read(&mut *stream)?;
        let (status, headers, body) = self.answer(&asked)?;
        let mut head = format!("HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
        for (name, value) in headers {
            head.extend([name, ": ", &value, "\r\n"]);
        }
        stream.write_all(format!("{head}\r\n{body}").as_bytes()).ok()?;
        stream.flush().ok()
    }

    fn answer(&self, asked: &Asked) -> Option<Answer> {
        let mut differ = Vec::new();
        let mut found = None;
        for exchange in &self.exchanges {
            let mut bound = Bound::new();
            match exchange.understands(asked, &mut bound) {
                Ok(signed) => {
                    // Of two requests that are alike but for the credential, the one that has it.
                    if found.as_ref().is_none_or(|(_, _, before)| !before) {
                        found = Some((exchange, bound, signed));
                    }
                }
                Err(why) => differ.push(format!("{}: {why}", exchange.of)),
            }
        }
        let mut state = self.state.lock().unwrap();
        let Some((exchange, bound, signed)) = found else {
            let all =
                format!("{} {} {:?} {}: {}", asked.method, asked.path, asked.headers, asked.body, differ.join("; "));
            state.mismatches.push(all.clone());
            return Some((400, Vec::new(), json!({"message": all}).to_string()));
        };
        state.log.push(exchange.of.clone());
        let fault = state.faults.iter().position(|(of, _)| *of == exchange.of).map(|at| state.faults.remove(at).1);
        match fault {
            Some(Fault::LoseBefore) => return None,
            Some(Fault::Say(status, headers, body)) => return Some((status, headers, body)),
            _ => {}
        }
        let (status, body) =
            if signed { self.effect(exchange, bound, &mut state) } else { exchange.other("refused", 401) };
        state.most = state.most.max(state.keys.len());
        drop(state);
        match fault {
            Some(Fault::LoseAfter) => None,
            Some(Fault::Body(body)) => Some((status, Vec::new(), body)),
            Some(Fault::Slow(time)) => {
                std::thread::sleep(time);
                Some((status, Vec::new(), body))
            }
            _ => Some((status, Vec::new(), body)),
        }
    }

    fn effect(&self, exchange: &Exchange, mut bound: Bound, state: &mut State) -> (u16, String) {
        let revokes = self.exchanges.iter().filter(|it| it.of == "revoke").count();
        match exchange.of.as_str() {
            "verify" => {
                if !self.valid(state, &bound) {
                    return exchange.other("refused", 401);
                }
                let key = state.keys.iter().find(|it| it.parts.get("key") == bound.get("key"));
                bound.extend(key.into_iter().flat_map(LiveKey::all));
                let user = state.places.iter().find(|(_, key)| Some(*key) == bound.get("key"));
                if let Some((user, _)) = user {
                    bound.insert("user".to_owned(), user.clone());
                }
            }
            "list" => {
                let each =
                    state.keys.iter().map(|key| fill(&exchange.said["each"], &key.all(), &[])).collect::<Vec<_>>();
                return exchange.response(&bound, &each);
            }
            "create" => {
                // Who asks with the key itself must have one that is valid.
                if !self.valid(state, &bound) {
                    return exchange.other("refused", 401);
                }
                state.made += 1;
                let made = state.made;
                let example = self.parts(&self.recipe["example"]);
                let fresh = |part: &str| {
                    let old = example.get(part)?;
                    match old.parse::<u64>() {
                        Ok(number) => Some((number + 1000 + made as u64).to_string()),
                        Err(_) => Some(format!("{old}-{made}")),
                    }
                };
                if let Some(slot) = bound.get("slot").or(bound.get("user")).filter(|_| !self.has_keys()) {
                    state.places.insert(slot.clone(), fresh("key").unwrap());
                    bound.extend(state.places.iter().map(|(slot, key)| (format!("key:{slot}"), key.clone())));
                    bound.insert("key".to_owned(), fresh("key").unwrap());
                    return exchange.response(&bound, &[]);
                }
                if self.class() == "in-place" {
                    let key = bound.get("key").cloned().unwrap_or_else(|| example["key"].clone());
                    state.keys.retain(|it| it.parts.get("key") != Some(&key));
                }
                if self.recipe["limit"].as_u64().is_some_and(|limit| state.keys.len() as u64 >= limit) {
                    let status = self.recipe["create"]["limit"][0].as_u64().unwrap_or(400);
                    return (u16::try_from(status).unwrap(), json!({"message": "too many keys"}).to_string());
                }
                let mut key = LiveKey { active: true, created: now(), ..LiveKey::default() };
                key.id = fresh("id").unwrap_or_else(|| format!("id-{made}"));
                key.name = bound.get("name").cloned().unwrap_or_default();
                key.parts = BTreeMap::from([("key".to_owned(), fresh("key").unwrap())]);
                bound.extend(key.all());
                state.keys.push(key);
            }
            "set" if self.coexists() => {
                if state.keys.iter().any(|it| it.parts.get("key") == bound.get("key")) {
                    return match self.recipe["set"]["exists"][0].as_u64() {
                        Some(status) => (u16::try_from(status).unwrap(), json!({"message": "exists"}).to_string()),
                        None => exchange.response(&bound, &[]),
                    };
                }
                state.made += 1;
                let id = bound.get("id").cloned().unwrap_or_else(|| format!("id-{}", state.made));
                let name = bound.get("name").cloned().unwrap_or_default();
                let key = LiveKey { id, name, parts: bound.clone(), active: true, created: now() };
                bound.extend(key.all());
                state.keys.push(key);
            }
            "set" => {
                let user = bound
                    .get("user")
                    .cloned()
                    .unwrap_or_else(|| self.parts(&self.recipe["example"]).get("user").cloned().unwrap_or_default());
                state.places.insert(user, bound["key"].clone());
            }
            "read" => bound.extend(state.places.iter().map(|(slot, key)| (format!("key:{slot}"), key.clone()))),
            "revoke" => {
                let at = state.keys.iter().position(|it| {
                    let all = it.all();
                    let named = ["id", "key", "name"].iter().find(|part| bound.contains_key(**part)).copied();
                    named.is_some_and(|part| all.get(part) == bound.get(part))
                });
                let Some(at) = at else { return exchange.other("missing", 404) };
                let index =
                    self.exchanges.iter().filter(|it| it.of == "revoke").position(|it| std::ptr::eq(it, exchange));
                if index == Some(revokes - 1) {
                    if revokes > 1 && state.keys[at].active {
                        return (400, json!({"message": "it is active"}).to_string());
                    }
                    // Who may only deactivate keeps them.
                    if self.class() == "staged" { state.keys[at].active = false } else { drop(state.keys.remove(at)) }
                } else {
                    state.keys[at].active = false;
                }
            }
            _ => {
                bound.insert("access".to_owned(), "access-of-the-client".to_owned());
            }
        }
        exchange.response(&bound, &[])
    }
}

fn now() -> String {
    let now = aws_smithy_types::DateTime::from(std::time::SystemTime::now());
    now.fmt(aws_smithy_types::date_time::Format::DateTime).unwrap()
}

impl LiveKey {
    fn all(&self) -> Bound {
        let mut all = self.parts.clone();
        all.extend([("id".to_owned(), self.id.clone()), ("name".to_owned(), self.name.clone())]);
        all.insert("timestamp".to_owned(), self.created.clone());
        all
    }
}

impl Exchange {
    fn response(&self, bound: &Bound, each: &[Value]) -> (u16, String) {
        let response = &self.said["response"];
        let status = response["status"].as_u64().unwrap_or(200);
        let body = response.get("json").map(|it| fill(it, bound, each).to_string()).unwrap_or_default();
        (u16::try_from(status).unwrap(), body)
    }

    /// An answer that is not the usual one.
    fn other(&self, name: &str, status: u16) -> (u16, String) {
        match self.said.get(name) {
            Some(said) => {
                let status = said["status"].as_u64().and_then(|it| u16::try_from(it).ok()).unwrap_or(status);
                (status, said.get("json").map(ToString::to_string).unwrap_or_default())
            }
            None => (status, json!({"message": name}).to_string()),
        }
    }

    /// Whether the request is this one, and then whether its headers have what they should.
    fn understands(&self, asked: &Asked, bound: &mut Bound) -> Result<bool, String> {
        let request = &self.said["request"];
        if request["method"] != asked.method.as_str() {
            return Err("another method".to_owned());
        }
        let (path, query) = asked.path.split_once('?').unwrap_or((&asked.path, ""));
        let port = self.url.port_u16().map(|port| format!(":{port}")).unwrap_or_default();
        let host = format!("{}{port}", self.url.host().unwrap());
        if asked.headers.get("host") != Some(&host) {
            return Err(format!("the host is not {host}"));
        }
        let segments = |path: &str| path.split('/').map(decoded).collect::<Vec<_>>();
        let (left, right) = (segments(&unescaped(self.url.path())), segments(path));
        if left.len() != right.len() || !left.iter().zip(&right).all(|(left, right)| matches(left, right, bound)) {
            return Err(format!("the path is not {}", unescaped(self.url.path())));
        }
        let pairs = |query: &str| form_urlencoded::parse(query.as_bytes()).into_owned().collect::<BTreeMap<_, _>>();
        let (left, right) = (pairs(&unescaped(self.url.query().unwrap_or_default())), pairs(query));
        if left.len() != right.len()
            || !left.iter().all(|(name, it)| right.get(name).is_some_and(|other| matches(it, other, bound)))
        {
            return Err(format!("the query is not {left:?}"));
        }
        match (request.get("json"), request.get("form")) {
            (Some(expected), _) => {
                if !matches_json(expected, &asked.json(), bound) {
                    return Err(format!("the body is not {expected}"));
                }
                if asked.headers.get("content-type").is_none_or(|it| !it.contains("json")) {
                    return Err("the body is not called JSON".to_owned());
                }
            }
            (None, Some(expected)) => {
                let form = pairs(&asked.body);
                let form = form.into_iter().map(|(name, it)| (name, Value::String(it))).collect::<Map<_, _>>();
                if !matches_json(expected, &Value::Object(form), bound) {
                    return Err(format!("the form is not {expected}"));
                }
            }
            (None, None) if !asked.body.is_empty() => return Err("there is a body".to_owned()),
            (None, None) => {}
        }
        let mut expected: BTreeMap<String, String> = BTreeMap::new();
        for (name, value) in request["headers"].as_object().into_iter().flatten() {
            expected.insert(name.clone(), value.as_str().unwrap().to_owned());
        }
        let sigv4 = asked.headers.get("authorization").is_some_and(|it| it.starts_with("AWS4-HMAC-SHA256 "));
        let usual = ["host", "accept", "user-agent", "content-length", "content-type"];
        let signed = ["authorization", "x-amz-date", "x-amz-security-token", "x-amz-content-sha256"];
        for name in asked.headers.keys() {
            let known = usual.contains(&name.as_str()) || (sigv4 && signed.contains(&name.as_str()));
            if !known && !expected.contains_key(name) {
                return Err(format!("the header {name} is not expected"));
            }
        }
        let mut right = true;
        for (name, pattern) in expected {
            let Some(value) = asked.headers.get(&name) else { return Err(format!("the header {name} is missing")) };
            let clear = value.strip_prefix("Basic ").and_then(|it| BASE64.decode(it.as_bytes()).ok());
            let clear = clear.map(|it| format!("Basic {}", String::from_utf8_lossy(&it)));
            right &= matches(&pattern, clear.as_ref().unwrap_or(value), bound);
            if name != "authorization" && !right && !pattern.contains('<') && !name.contains("key") {
                return Err(format!("the header {name} is not {pattern}"));
            }
        }
        Ok(right)
    }
}
