//! The operations of Secrets Manager: parameters in, the rules of [`Service`], answers in AWS's shape.
//!
//! A parameter that is real and not built here is refused, so that nobody relies on what is silently left out.

use std::collections::BTreeMap;
use std::sync::Arc;

use data_encoding::BASE64;
use keywheel::store::memory::{Payload, Record, Refusal, Service, VersionRecord};
use keywheel::store::{CURRENT, PENDING};
use serde_json::{Map, Value, json};

use super::rotation::{self, ALL_STEPS, TEST_ONLY};
use super::{Shared, lock, uuid};

pub(super) type Answer<T> = Result<T, Refusal>;

fn refuse<T>(code: &'static str, message: impl Into<String>) -> Answer<T> {
    Err(Refusal { code, message: message.into() })
}

const VALIDATION: &str = "ValidationException";
const INVALID_PARAMETER: &str = "InvalidParameterException";
const INVALID_REQUEST: &str = "InvalidRequestException";

/// Runs one operation; the answer is empty for those that AWS answers with an empty body.
pub(super) fn run(shared: &Arc<Shared>, operation: &str, body: Map<String, Value>) -> Answer<Option<Value>> {
    // Several calls to the service make one operation.
    let _one_at_a_time = lock(&shared.operation);
    let (service, parameters) = (&shared.service, Parameters(body));
    match operation {
        "CreateSecret" => create(service, parameters).map(Some),
        "DescribeSecret" => describe(service, parameters).map(Some),
        "GetSecretValue" => get(service, parameters).map(Some),
        "ListSecretVersionIds" => list_versions(service, parameters).map(Some),
        "PutSecretValue" => put(service, parameters).map(Some),
        "UpdateSecretVersionStage" => update_stage(service, parameters).map(Some),
        "RotateSecret" => rotate(shared, parameters).map(Some),
        "CancelRotateSecret" => cancel_rotation(service, parameters).map(Some),
        "ListSecrets" => list_secrets(service, parameters).map(Some),
        "TagResource" => tag(service, parameters).map(|()| None),
        "UntagResource" => untag(service, parameters).map(|()| None),
        "DeleteSecret" => delete(service, parameters).map(Some),
        _ => refuse("UnknownOperationException", format!("the emulator has no operation {operation}")),
    }
}

fn create(service: &Service, mut parameters: Parameters) -> Answer<Value> {
    let name = parameters.required("Name")?;
    let token = parameters.token()?;
    let value = parameters.value()?;
    let description = parameters.text("Description")?;
    let tags = parameters.tags()?;
    parameters.end()?;
    let allowed = |it: char| it.is_ascii_alphanumeric() || "-/_+=.@!".contains(it);
    if !(1..=512).contains(&name.len()) || !name.chars().all(allowed) {
        return refuse(
            VALIDATION,
            "Invalid name. Must be a valid name containing alphanumeric characters, or any of the following: -/_+=.@!",
        );
    }
    let valued = value.is_some();
    let arn = service.create(&name, &token, value)?;
    service.edit(&arn, |record| {
        record.description = description.filter(|it| !it.is_empty());
        record.tags.extend(tags);
    })?;
    let mut answer = json!({"ARN": arn, "Name": name});
    if valued {
        answer["VersionId"] = token.into();
    }
    Ok(answer)
}

fn describe(service: &Service, mut parameters: Parameters) -> Answer<Value> {
    let secret = parameters.required("SecretId")?;
    parameters.end()?;
    service.inspect(&secret, |record| description(record, "VersionIdsToStages"))
}

/// What `DescribeSecret` and `ListSecrets` say of a secret; they differ in the name of one field.
fn description(record: &Record, stages: &str) -> Value {
    let mut answer = json!({
        "ARN": record.arn,
        "Name": record.name,
        "CreatedDate": date(record.created),
        "LastChangedDate": date(record.changed),
    });
    let mut add = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            answer[name] = value;
        }
    };
    add("Description", record.description.clone().map(Value::from));
    add("RotationEnabled", record.rotation_enabled.map(Value::from));
    add("RotationLambdaARN", record.rotation_function.clone().map(Value::from));
    add("RotationRules", record.rotation_rules.clone());
    add("LastRotatedDate", record.rotated.map(date));
    add("DeletedDate", record.deletion.map(date));
    let tags: Vec<_> = record.tags.iter().map(|(key, value)| json!({"Key": key, "Value": value})).collect();
    add("Tags", Some(tags).filter(|tags| !tags.is_empty()).map(Value::from));
    let labelled = record.versions.iter().filter(|version| !version.stages.is_empty());
    let labelled: Map<_, _> = labelled.map(|version| (version.id.clone(), json!(version.stages))).collect();
    add(stages, Some(labelled).filter(|labelled| !labelled.is_empty()).map(Value::from));
    answer
}

fn get(service: &Service, mut parameters: Parameters) -> Answer<Value> {
    let secret = parameters.required("SecretId")?;
    let id = parameters.text("VersionId")?;
    let stage = parameters.text("VersionStage")?;
    parameters.end()?;
    let (id, value, stages) = service.get(&secret, id.as_deref(), stage.as_deref())?;
    service.inspect(&secret, |record| {
        let (field, value) = match value {
            Payload::Text(text) => ("SecretString", text),
            Payload::Binary(bytes) => ("SecretBinary", BASE64.encode(&bytes)),
        };
        let created = record.version(&id).map(|version| date(version.created));
        let mut answer =
            json!({"ARN": record.arn, "Name": record.name, "VersionId": id, field: value, "CreatedDate": created});
        if !stages.is_empty() {
            answer["VersionStages"] = json!(stages);
        }
        answer
    })
}

fn list_versions(service: &Service, mut parameters: Parameters) -> Answer<Value> {
    let secret = parameters.required("SecretId")?;
    let all = parameters.flag("IncludeDeprecated")?.unwrap_or(false);
    let page = parameters.page()?;
    parameters.end()?;
    let entry = |version: &VersionRecord| {
        let mut entry = json!({"VersionId": version.id, "CreatedDate": date(version.created)});
        if !version.stages.is_empty() {
            entry["VersionStages"] = json!(version.stages);
        }
        entry
    };
    service.inspect(&secret, |record| {
        let listed = record.versions.iter().filter(|version| all || !version.stages.is_empty());
        let mut answer = page.cut("Versions", listed.map(entry).collect());
        answer["ARN"] = record.arn.clone().into();
        answer["Name"] = record.name.clone().into();
        answer
    })
}

fn put(service: &Service, mut parameters: Parameters) -> Answer<Value> {
    let secret = parameters.required("SecretId")?;
    let token = parameters.token()?;
    let value = parameters.value()?;
    let stages = parameters.texts("VersionStages")?;
    let rotation_token = parameters.text("RotationToken")?;
    parameters.end()?;
    if rotation_token.is_some_and(|token| !(36..=256).contains(&token.len())) {
        return refuse(INVALID_PARAMETER, "RotationToken must be 36-256 characters long.");
    }
    if stages.len() > 20 {
        return refuse(INVALID_PARAMETER, "VersionStages must have 20 or fewer items.");
    }
    let Some(value) = value else {
        return refuse(INVALID_REQUEST, "You must provide either SecretString or SecretBinary.");
    };
    service.put(&secret, &token, value, &stages)?;
    service.inspect(&secret, |record| {
        let stages = record.version(&token).map(|version| &version.stages);
        json!({"ARN": record.arn, "Name": record.name, "VersionId": token, "VersionStages": stages})
    })
}

fn update_stage(service: &Service, mut parameters: Parameters) -> Answer<Value> {
    let secret = parameters.required("SecretId")?;
    let stage = parameters.required("VersionStage")?;
    let to = parameters.text("MoveToVersionId")?;
    let from = parameters.text("RemoveFromVersionId")?;
    parameters.end()?;
    service.update_stage(&secret, &stage, to.as_deref(), from.as_deref())?;
    service.inspect(&secret, identity)
}

fn identity(record: &Record) -> Value {
    json!({"ARN": record.arn, "Name": record.name})
}

fn rotate(shared: &Arc<Shared>, mut parameters: Parameters) -> Answer<Value> {
    let secret = parameters.required("SecretId")?;
    let token = parameters.token()?;
    let function = parameters.text("RotationLambdaARN")?;
    let rules = parameters.rotation_rules()?;
    let immediately = parameters.flag("RotateImmediately")?.unwrap_or(true);
    parameters.end()?;
    if lock(&shared.function).is_none() {
        return refuse(INVALID_REQUEST, "the emulator knows no URL of a rotation function");
    }
    let service = &shared.service;
    let (arn, mut answer, unfinished) = service.inspect(&secret, |record| {
        let unfinished = record.unfinished_rotation().filter(|version| version.id != token);
        (record.arn.clone(), identity(record), unfinished.map(|version| version.id.clone()))
    })?;
    answer["VersionId"] = token.as_str().into();
    if rotation::is_known(shared, &arn, &token) {
        return Ok(answer);
    }
    match unfinished {
        // Refused below; a refused call stores no settings.
        Some(unfinished) => rotation::attempt_again(shared, &arn, &unfinished),
        None => service.edit(&secret, |record| {
            record.rotation_function = function.or(record.rotation_function.take());
            record.rotation_rules = rules.or(record.rotation_rules.take());
        })?,
    }
    service.begin_rotation(&secret, &token)?;
    let steps = if immediately {
        ALL_STEPS
    } else {
        let (_, current, _) = service.get(&secret, None, Some(CURRENT))?;
        service.put(&secret, &token, current, &[PENDING.to_owned()])?;
        TEST_ONLY
    };
    rotation::start(shared, &arn, &token, steps);
    Ok(answer)
}

fn cancel_rotation(service: &Service, mut parameters: Parameters) -> Answer<Value> {
    let secret = parameters.required("SecretId")?;
    parameters.end()?;
    let pending = service.cancel_rotation(&secret)?;
    let mut answer = service.inspect(&secret, identity)?;
    if let Some(pending) = pending {
        answer["VersionId"] = pending.into();
    }
    Ok(answer)
}

fn list_secrets(service: &Service, mut parameters: Parameters) -> Answer<Value> {
    let deleted = parameters.flag("IncludePlannedDeletion")?.unwrap_or(false);
    let page = parameters.page()?;
    parameters.end()?;
    let listed = service.inspect_all(|record| {
        (deleted || record.deletion.is_none()).then(|| description(record, "SecretVersionsToStages"))
    });
    Ok(page.cut("SecretList", listed.into_iter().flatten().collect()))
}

fn tag(service: &Service, mut parameters: Parameters) -> Answer<()> {
    let secret = parameters.required("SecretId")?;
    let tags = parameters.tags()?;
    parameters.end()?;
    service.edit(&secret, |record| record.tags.extend(tags))
}

fn untag(service: &Service, mut parameters: Parameters) -> Answer<()> {
    let secret = parameters.required("SecretId")?;
    let keys = parameters.texts("TagKeys")?;
    parameters.end()?;
    service.edit(&secret, |record| record.tags.retain(|key, _| !keys.contains(key)))
}

fn delete(service: &Service, mut parameters: Parameters) -> Answer<Value> {
    const DAY: u64 = 24 * 60 * 60 * 1000;
    let secret = parameters.required("SecretId")?;
    let days = parameters.number("RecoveryWindowInDays")?;
    let force = parameters.flag("ForceDeleteWithoutRecovery")?.unwrap_or(false);
    parameters.end()?;
    let days = match days {
        Some(_) if force => {
            return refuse(
                INVALID_PARAMETER,
                "You can't use ForceDeleteWithoutRecovery in conjunction with RecoveryWindowInDays.",
            );
        }
        Some(days) => u64::try_from(days).ok().filter(|days| (7..=30).contains(days)),
        None => Some(if force { 0 } else { 30 }),
    };
    let Some(days) = days else {
        return refuse(INVALID_PARAMETER, "The RecoveryWindowInDays value must be between 7 and 30 days (inclusive).");
    };
    let at = super::now() + days * DAY;
    let mut answer = match service.inspect(&secret, identity) {
        // To be forced to delete what is not there is no error.
        Err(_) if force => json!({"Name": secret}),
        found => found?,
    };
    if !force {
        service.schedule_deletion(&secret, at)?;
    } else if answer.get("ARN").is_some() {
        service.delete(&secret)?;
    }
    answer["DeletionDate"] = date(at);
    Ok(answer)
}

/// A time as AWS JSON gives it: seconds since 1970 with three decimals.
fn date(milliseconds: u64) -> Value {
    json!(std::time::Duration::from_millis(milliseconds).as_secs_f64())
}

/// The parameters of one call; each is taken out when it is read, and in the end none may be left.
struct Parameters(Map<String, Value>);

impl Parameters {
    fn take<T>(&mut self, name: &str, what: &str, read: impl FnOnce(Value) -> Option<T>) -> Answer<Option<T>> {
        match self.0.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match read(value) {
                Some(read) => Ok(Some(read)),
                None => refuse(
                    VALIDATION,
                    format!(
                        "1 validation error detected: Value at '{}' failed to satisfy constraint: Member must be {what}",
                        member(name)
                    ),
                ),
            },
        }
    }

    fn text(&mut self, name: &str) -> Answer<Option<String>> {
        self.take(name, "a string", |value| match value {
            Value::String(text) => Some(text),
            _ => None,
        })
    }

    fn required(&mut self, name: &str) -> Answer<String> {
        match self.text(name)? {
            None => refuse(
                VALIDATION,
                format!(
                    "1 validation error detected: Value null at '{}' failed to satisfy constraint: Member must not be null",
                    member(name)
                ),
            ),
            Some(text) if text.is_empty() => refuse(
                VALIDATION,
                format!(
                    "1 validation error detected: Value '' at '{}' failed to satisfy constraint: Member must have length greater than or equal to 1",
                    member(name)
                ),
            ),
            Some(text) => Ok(text),
        }
    }

    fn flag(&mut self, name: &str) -> Answer<Option<bool>> {
        self.take(name, "a boolean", |value| value.as_bool())
    }

    fn number(&mut self, name: &str) -> Answer<Option<i64>> {
        self.take(name, "a whole number", |value| value.as_i64())
    }

    fn texts(&mut self, name: &str) -> Answer<Vec<String>> {
        let texts = self.take(name, "a list of strings", |value| {
            value.as_array()?.iter().map(|text| text.as_str().map(str::to_owned)).collect()
        });
        texts.map(Option::unwrap_or_default)
    }

    fn tags(&mut self) -> Answer<BTreeMap<String, String>> {
        let tags = self.take("Tags", "a list of keys with values", |value| {
            let pair = |tag: &Value| Some((tag["Key"].as_str()?.to_owned(), tag["Value"].as_str()?.to_owned()));
            value.as_array()?.iter().map(pair).collect()
        });
        tags.map(Option::unwrap_or_default)
    }

    /// The id of the version to be made. The SDKs always send one.
    fn token(&mut self) -> Answer<String> {
        Ok(self.text("ClientRequestToken")?.unwrap_or_else(uuid))
    }

    fn value(&mut self) -> Answer<Option<Payload>> {
        let text = self.text("SecretString")?.map(Payload::Text);
        let binary = self.take("SecretBinary", "base64", |value| BASE64.decode(value.as_str()?.as_bytes()).ok())?;
        if text.is_some() && binary.is_some() {
            return refuse(
                INVALID_PARAMETER,
                "You can't specify both a binary secret value and a string secret value in the same secret.",
            );
        }
        Ok(text.or(binary.map(Payload::Binary)))
    }

    fn rotation_rules(&mut self) -> Answer<Option<Value>> {
        let Some(given) = self.take("RotationRules", "a structure", |value| value.as_object().cloned())? else {
            return Ok(None);
        };
        let mut rules = Self(given.clone());
        let days = rules.number("AutomaticallyAfterDays")?;
        let schedule = rules.text("ScheduleExpression")?;
        let duration = rules.text("Duration")?;
        rules.end()?;
        match (days, schedule) {
            (Some(_), Some(_)) => {
                return refuse(
                    INVALID_PARAMETER,
                    "You cannot specify both rotation frequency and schedule expression together.",
                );
            }
            (None, None) => {
                return refuse(INVALID_PARAMETER, "RotationRules needs AutomaticallyAfterDays or ScheduleExpression.");
            }
            (Some(days), None) if !(1..=1000).contains(&days) => {
                return refuse(INVALID_PARAMETER, "AutomaticallyAfterDays must be from 1 to 1000.");
            }
            (None, Some(schedule)) if !is_schedule(&schedule) => {
                return refuse(INVALID_PARAMETER, format!("ScheduleExpression {schedule} is not valid."));
            }
            _ => {}
        }
        let hours = |text: &str| text.strip_suffix('h').and_then(|hours| hours.parse::<u32>().ok());
        if duration.is_some_and(|duration| !hours(&duration).is_some_and(|hours| (1..=24).contains(&hours))) {
            return refuse(INVALID_PARAMETER, "Duration must be a number of hours, as in 3h.");
        }
        Ok(Some(given.into()))
    }

    fn page(&mut self) -> Answer<Page> {
        let size = match self.number("MaxResults")?.map(usize::try_from) {
            None => 100,
            Some(Ok(size)) if (1..=100).contains(&size) => size,
            Some(_) => return refuse(INVALID_PARAMETER, "MaxResults must be from 1 to 100."),
        };
        let start = match self.text("NextToken")?.map(|token| token.parse()) {
            None => 0,
            Some(Ok(start)) => start,
            Some(Err(_)) => return refuse("InvalidNextTokenException", "The NextToken value is invalid."),
        };
        Ok(Page { start, size })
    }

    fn end(self) -> Answer<()> {
        match self.0.keys().next() {
            None => Ok(()),
            Some(name) => refuse(INVALID_PARAMETER, format!("the emulator does not know the parameter {name}")),
        }
    }
}

/// The name as the service's own messages write it.
fn member(name: &str) -> String {
    name[..1].to_lowercase() + &name[1..]
}

/// `rate(…)` of four hours or more, or `cron(…)` with six fields, on the hour and in every year.
fn is_schedule(expression: &str) -> bool {
    let inner = |name: &str| expression.strip_prefix(name)?.strip_prefix('(')?.strip_suffix(')');
    if let Some(rate) = inner("rate") {
        return match rate.split_once(' ').map(|(number, unit)| (number.parse::<u32>(), unit)) {
            Some((Ok(number), "hour" | "hours")) => number >= 4,
            Some((Ok(number), "day" | "days")) => number >= 1,
            _ => false,
        };
    }
    let fields: Vec<_> = inner("cron").unwrap_or_default().split_whitespace().collect();
    matches!(fields[..], ["0", _, _, _, _, "*"])
}

/// One page of a list.
struct Page {
    start: usize,
    size: usize,
}

impl Page {
    fn cut(&self, name: &str, all: Vec<Value>) -> Value {
        let end = self.start.saturating_add(self.size);
        let more = end < all.len();
        let page: Vec<_> = all.into_iter().skip(self.start).take(self.size).collect();
        let mut answer = json!({name: page});
        if more {
            answer["NextToken"] = end.to_string().into();
        }
        answer
    }
}
