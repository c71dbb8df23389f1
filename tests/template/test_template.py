"""Holds template.yaml to its promises, without an AWS account.

A small CloudFormation resolves the template for many sets of parameters; the tests look at what comes out: the
function, its permissions, and the SecretProviderClass by the rules of the CSI driver and its AWS provider. Which kinds
there are, and which fields of them become files, comes from the registry of the Rust code, so that neither side can
change alone.
"""

import functools
import itertools
import json
import os
import pathlib
import re
import unittest

import jmespath
import yaml

from stack import ACCOUNT, FUNCTION, LOGS, NO_VALUE, REGION, SECRET, STACK, TEMPLATE, Refused, Stack

KINDS = []

EXISTING = f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:prod/orders_db-Xy12Zz"
ADMIN = f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:rds!cluster-0a1b-Ad12Mn"
KEY = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/mrk-1234abcd12ab34cd56ef1234567890ab"
USER = f"arn:aws:iam::{ACCOUNT}:user/apps/pipeline"
TOPIC = f"arn:aws:sns:{REGION}:{ACCOUNT}:oncall"


def setUpModule():
    path = os.environ.get("KEYWHEEL_REGISTRY")
    if not path:
        raise RuntimeError(
            "KEYWHEEL_REGISTRY is not set; run `make test`, which writes the kinds of the Rust code to a JSON file and"
            " names it in this variable"
        )
    KINDS.extend(json.loads(pathlib.Path(path).read_text()))


CHOICES = {
    "Kind": [
        "random",
        "postgres",
        "redshift",
        "mysql",
        "mariadb",
        "redis",
        "rabbitmq",
        "iam-access-key",
        "bedrock-api-key",
        "ses-smtp",
        "elasticache-user",
        "memorydb-user",
        "opensearch-master",
        "rds-master",
        "redshift-admin",
        "http",
    ],
    "Authentication": ["PodIdentity", "IRSA"],
    "MountFields": ["true", "false"],
    "MountPrevious": ["true", "false"],
    "SecretArn": ["", EXISTING],
    "KmsKeyArn": ["", KEY],
    "AdminSecretArn": ["", ADMIN],
    "ResourceArn": ["", USER],
    "SubnetIds": ["", "subnet-0a1b2c3d,subnet-4e5f6a7b"],
}


def for_every_stack(test):
    """Runs a test on each combination of the choices that change what the template makes."""

    @functools.wraps(test)
    def run(self):
        for values in itertools.product(*CHOICES.values()):
            parameters = dict(zip(CHOICES, values))
            if parameters["SubnetIds"]:
                parameters["SecurityGroupIds"] = "sg-0a1b2c3d"
            if parameters["Kind"] != "random" and not parameters["SecretArn"]:
                continue
            try:
                test(self, Stack(**parameters))
            except Exception as error:
                raise AssertionError(f"{error}\n\nwith these parameters: {parameters}") from error

    return run


class Function(unittest.TestCase):
    def test_runs_the_binary_as_promised(self):
        function = Stack()["RotationFunction"]
        self.assertEqual(function["Runtime"], "provided.al2023")
        self.assertEqual(function["Handler"], "bootstrap")
        self.assertEqual(function["Architectures"], ["arm64"])
        self.assertEqual(function["MemorySize"], 128)
        self.assertEqual(function["Timeout"], 60)
        self.assertEqual(TEMPLATE["Resources"]["RotationFunction"]["Metadata"]["BuildMethod"], "makefile")
        self.assertNotIn("DeadLetterConfig", function)
        self.assertEqual(Stack(Architecture="x86_64")["RotationFunction"]["Architectures"], ["x86_64"])

    def test_has_no_environment_unless_asked_for(self):
        self.assertEqual(Stack()["RotationFunction"]["Environment"], {"Variables": {}})
        asked = Stack(PasswordLength="40", ExcludeCharacters="/@:")["RotationFunction"]["Environment"]
        self.assertEqual(asked, {"Variables": {"PASSWORD_LENGTH": "40", "EXCLUDE_CHARACTERS": "/@:"}})

    @for_every_stack
    def test_is_in_a_vpc_only_with_subnets(self, stack):
        expected = None
        if stack.parameters["SubnetIds"]:
            expected = {"SubnetIds": ["subnet-0a1b2c3d", "subnet-4e5f6a7b"], "SecurityGroupIds": ["sg-0a1b2c3d"]}
        self.assertEqual(stack["RotationFunction"].get("VpcConfig"), expected)

    def test_logs_to_a_group_with_retention(self):
        stack = Stack(LogRetentionDays="30")
        self.assertEqual(
            stack["RotationFunction"]["LoggingConfig"], {"LogFormat": "JSON", "LogGroup": Stack.IDS["RotationLogGroup"]}
        )
        self.assertEqual(stack["RotationLogGroup"]["RetentionInDays"], "30")
        self.assertEqual(stack["RotationLogGroup"]["LogGroupName"], f"/aws/lambda/{STACK}-rotation")

    def test_failures_and_throttles_raise_an_alarm(self):
        for name, metric in {"ErrorAlarm": "Errors", "ThrottleAlarm": "Throttles"}.items():
            alarm = Stack(AlarmTopicArn=TOPIC)[name]
            self.assertEqual((alarm["Namespace"], alarm["MetricName"]), ("AWS/Lambda", metric))
            self.assertEqual(alarm["Dimensions"], [{"Name": "FunctionName", "Value": f"{STACK}-rotation"}])
            self.assertEqual((alarm["Threshold"], alarm["TreatMissingData"]), (1, "notBreaching"))
            self.assertEqual(alarm["AlarmActions"], [TOPIC])
            self.assertNotIn("AlarmActions", Stack()[name])


class Permissions(unittest.TestCase):
    ON_THE_SECRET = {
        "secretsmanager:DescribeSecret",
        "secretsmanager:GetSecretValue",
        "secretsmanager:ListSecretVersionIds",
        "secretsmanager:PutSecretValue",
        "secretsmanager:UpdateSecretVersionStage",
    }

    def statements(self, stack):
        """The statements by their Sid, with actions and resources as lists."""
        role = stack["RotationRole"]
        self.assertNotIn("ManagedPolicyArns", role)
        found = {}
        for policy in role["Policies"]:
            for statement in policy["PolicyDocument"]["Statement"]:
                self.assertNotIn(statement["Sid"], found)
                for key in ("Action", "Resource"):
                    if isinstance(statement[key], str):
                        statement[key] = [statement[key]]
                found[statement["Sid"]] = statement
        return found

    def test_function_has_this_role_and_no_other(self):
        function = Stack()["RotationFunction"]
        self.assertEqual(function["Role"], Stack.ATTRIBUTES["RotationRole", "Arn"])
        self.assertNotIn("Policies", function)
        trust = Stack()["RotationRole"]["AssumeRolePolicyDocument"]["Statement"]
        self.assertEqual([statement["Principal"] for statement in trust], [{"Service": "lambda.amazonaws.com"}])

    @for_every_stack
    def test_secret_is_reached_only_as_its_rotation_function(self, stack):
        secret = stack.parameters["SecretArn"] or SECRET
        allowed = set()
        for statement in self.statements(stack).values():
            if statement["Resource"] == [secret]:
                condition = {"StringEquals": {"secretsmanager:resource/AllowRotationLambdaArn": FUNCTION}}
                self.assertEqual(statement["Condition"], condition, statement["Sid"])
                allowed.update(statement["Action"])
        self.assertEqual(allowed, self.ON_THE_SECRET)

    def test_function_name_is_the_one_in_the_condition(self):
        self.assertEqual(FUNCTION.rpartition(":")[2], Stack()["RotationFunction"]["FunctionName"])

    @for_every_stack
    def test_everything_else_is_there_only_if_asked_for(self, stack):
        statements = self.statements(stack)
        expected = {"RotateSecret", "FindAbandonedVersion", "WriteLogs"}
        if stack.parameters["AdminSecretArn"]:
            expected.add("ReadAdminSecret")
            self.assertEqual(statements["ReadAdminSecret"]["Resource"], [ADMIN])
            self.assertEqual(
                set(statements["ReadAdminSecret"]["Action"]),
                {"secretsmanager:DescribeSecret", "secretsmanager:GetSecretValue"},
            )
            expected.add("FindManagedDatabase")
            databases = statements["FindManagedDatabase"]
            self.assertEqual(set(databases["Action"]), {"rds:DescribeDBClusters", "rds:DescribeDBInstances"})
            here = f"arn:aws:rds:{REGION}:{ACCOUNT}"
            self.assertEqual(set(databases["Resource"]), {f"{here}:cluster:*", f"{here}:db:*"})
            variables = stack["RotationFunction"]["Environment"]["Variables"]
            self.assertEqual(variables["KEYWHEEL_ADMIN_SECRETS"], ADMIN)
            if stack.parameters["Kind"] == "redshift":
                expected.add("FindManagedWarehouse")
        needed = next(kind["permissions"] for kind in KINDS if kind["name"] == stack.parameters["Kind"])
        if stack.parameters["ResourceArn"] and needed:
            expected.add("RotateKeysOfResource")
            self.assertEqual(statements["RotateKeysOfResource"]["Resource"], [USER])
            self.assertEqual(statements["RotateKeysOfResource"]["Action"], needed)
            if stack.parameters["Kind"] == "redshift-admin":
                expected.add("DescribeWarehouse")
        if stack.parameters["KmsKeyArn"]:
            expected.add("UseKeyOfSecret")
            key = statements["UseKeyOfSecret"]
            self.assertEqual(key["Resource"], [KEY])
            self.assertEqual(set(key["Action"]), {"kms:Decrypt", "kms:GenerateDataKey"})
            secrets = [stack.parameters["SecretArn"] or SECRET]
            secrets += [ADMIN] if stack.parameters["AdminSecretArn"] else []
            self.assertEqual(key["Condition"], {"StringEquals": {"kms:EncryptionContext:SecretARN": secrets}})
        if stack.parameters["SubnetIds"]:
            expected.add("AttachToVpc")
        self.assertEqual(statements.keys(), expected)
        self.assertEqual(statements["WriteLogs"]["Resource"], [LOGS])

    @for_every_stack
    def test_only_vpc_interfaces_and_lists_of_redshift_are_allowed_on_every_resource(self, stack):
        for sid, statement in self.statements(stack).items():
            self.assertEqual(statement["Effect"], "Allow")
            if sid == "AttachToVpc":
                for action in statement["Action"]:
                    self.assertRegex(action, r"^ec2:\w*(NetworkInterface|PrivateIpAddress|DescribeSubnets)\w*$")
            elif sid in ("FindManagedWarehouse", "DescribeWarehouse"):
                for action in statement["Action"]:
                    self.assertRegex(action, r"^redshift(-serverless)?:(Describe|List)\w+$")
                self.assertEqual(statement["Condition"], {"StringEquals": {"aws:RequestedRegion": REGION}})
            else:
                for resource in statement["Resource"]:
                    # RDS is asked for a database whose name only the administrator's secret knows.
                    if sid == "FindManagedDatabase":
                        resource = resource.removesuffix(":*")
                    if sid == "RotateKeysOfResource":
                        self.assertEqual(resource, USER)
                        continue
                    self.assertRegex(resource, "^arn:aws:[a-z]+:[^*]+:[^*]+:[^*]+(:[*])?$")
            for action in statement["Action"]:
                self.assertNotIn("*", action)


class Rotation(unittest.TestCase):
    def test_only_secrets_manager_of_this_account_may_invoke(self):
        permission = Stack()["RotationPermission"]
        self.assertEqual(permission["Principal"], "secretsmanager.amazonaws.com")
        self.assertEqual(permission["Action"], "lambda:InvokeFunction")
        self.assertEqual(permission["SourceAccount"], ACCOUNT)
        self.assertEqual(permission["FunctionName"], f"{STACK}-rotation")

    @for_every_stack
    def test_schedule_rotates_the_secret_every_30_days(self, stack):
        schedule = stack["RotationSchedule"]
        self.assertEqual(schedule["SecretId"], stack.parameters["SecretArn"] or SECRET)
        self.assertEqual(schedule["RotationLambdaARN"], FUNCTION)
        self.assertEqual(schedule["RotationRules"], {"ScheduleExpression": "rate(30 days)"})
        self.assertEqual(schedule["RotateImmediatelyOnUpdate"], "true")
        self.assertIn("RotationPermission", stack.resources["RotationSchedule"]["DependsOn"])

    def test_schedule_follows_its_parameters(self):
        asked = Stack(ScheduleExpression="cron(0 3 ? * SUN#1 *)", ScheduleWindow="4h", RotateImmediatelyOnUpdate="false")
        rules = {"ScheduleExpression": "cron(0 3 ? * SUN#1 *)", "Duration": "4h"}
        self.assertEqual(asked["RotationSchedule"]["RotationRules"], rules)
        self.assertEqual(asked["RotationSchedule"]["RotateImmediatelyOnUpdate"], "false")

    @for_every_stack
    def test_secret_is_created_unless_one_is_named(self, stack):
        self.assertEqual("RotatedSecret" in stack.resources, not stack.parameters["SecretArn"])
        if "RotatedSecret" in stack.resources:
            self.assertEqual(stack["RotatedSecret"].get("KmsKeyId"), stack.parameters["KmsKeyArn"] or None)

    def test_created_secret_is_a_random_token_that_outlives_the_stack(self):
        secret = Stack().resources["RotatedSecret"]
        self.assertEqual((secret["DeletionPolicy"], secret["UpdateReplacePolicy"]), ("Retain", "Retain"))
        generate = secret["Properties"]["GenerateSecretString"]
        self.assertEqual(json.loads(generate["SecretStringTemplate"]), {"kind": "random", "field": "token", "encoding": "base64url"})
        self.assertEqual(generate["GenerateStringKey"], "token")
        self.assertEqual((generate["PasswordLength"], generate["ExcludePunctuation"]), (32, True))
        self.assertNotIn("Name", secret["Properties"])
        self.assertEqual(Stack(SecretName="llm/gateway")["RotatedSecret"]["Name"], "llm/gateway")


def scalars(node):
    """The values in a YAML node, without the keys of its mappings."""
    if isinstance(node, yaml.MappingNode):
        for _, value in node.value:
            yield from scalars(value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from scalars(value)
    else:
        yield node


def child(node, *keys):
    for key in keys:
        node = next(value for name, value in node.value if name.value == key)
    return node


class Manifest(unittest.TestCase):
    PARAMETERS = {
        "objects",
        "region",
        "failoverRegion",
        "pathTranslation",
        "usePodIdentity",
        "preferredAddressType",
    }
    ENTRY = {
        "objectName",
        "objectType",
        "objectAlias",
        "objectVersion",
        "objectVersionLabel",
        "filePermission",
        "jmesPath",
        "failoverObject",
    }

    def entries(self, stack):
        """The entries of `objects`, once the manifest has passed the rules of the driver and the provider."""
        text = stack.outputs["SecretProviderClass"]["Value"]
        manifest = yaml.safe_load(text)
        self.assertEqual(manifest.keys(), {"apiVersion", "kind", "metadata", "spec"})
        self.assertEqual(manifest["apiVersion"], "secrets-store.csi.x-k8s.io/v1")
        self.assertEqual(manifest["kind"], "SecretProviderClass")
        self.assertEqual(manifest["spec"].keys(), {"provider", "parameters"})
        self.assertEqual(manifest["spec"]["provider"], "aws")

        node = yaml.compose(text)
        for value in itertools.chain(scalars(child(node, "metadata")), scalars(child(node, "spec", "parameters"))):
            self.assertIn(value.style, ('"', "'", "|"), f"not quoted: {value.value}")
        parameters = manifest["spec"]["parameters"]
        self.assertLessEqual(parameters.keys(), self.PARAMETERS)
        for value in parameters.values():
            self.assertIsInstance(value, str)
        self.assertEqual(parameters["region"], REGION)
        self.assertIn(parameters["usePodIdentity"], ("true", "false"))

        for value in scalars(yaml.compose(parameters["objects"])):
            self.assertIn(value.style, ('"', "'"), f"not quoted in objects: {value.value}")
        entries = yaml.safe_load(parameters["objects"])
        self.assertIsInstance(entries, list)
        files = []
        for entry in entries:
            self.assertLessEqual(entry.keys(), self.ENTRY)
            arn = entry["objectName"].split(":", 6)
            self.assertEqual((len(arn), arn[2], arn[3]), (7, "secretsmanager", REGION))
            self.assertEqual(entry["objectType"], "secretsmanager")
            fields = entry.get("jmesPath", [])
            for field in fields:
                self.assertLessEqual(field.keys(), {"path", "objectAlias", "filePermission"})
                jmespath.compile(field["path"])
            for file in (entry, *fields):
                self.assertRegex(file["objectAlias"], r"^[A-Za-z0-9_][A-Za-z0-9._-]*$")
                files.append(file["objectAlias"])
                self.assertRegex(file.get("filePermission", "0644"), "^[0-7]{4}$")
        self.assertEqual(len(files), len(set(files)), f"two files of one name: {files}")
        return entries

    def paths(self, stack):
        return {field["objectAlias"]: field["path"] for field in self.entries(stack)[0].get("jmesPath", [])}

    @for_every_stack
    def test_is_valid_for_every_choice(self, stack):
        current, *previous = self.entries(stack)
        self.assertEqual(current["objectName"], stack.parameters["SecretArn"] or SECRET)
        self.assertNotIn("objectVersion", current)
        self.assertNotIn("objectVersionLabel", current)
        fields = stack.parameters["MountFields"] == "true"
        extension = ".json" if fields else ""
        self.assertEqual(current["objectAlias"], "secret" + extension)
        self.assertEqual("jmesPath" in current, fields)
        if stack.parameters["MountPrevious"] == "true":
            expected = {
                "objectName": current["objectName"],
                "objectType": "secretsmanager",
                "objectVersionLabel": "AWSPREVIOUS",
                "objectAlias": "previous" + extension,
            }
            self.assertEqual(previous, [expected])
        else:
            self.assertEqual(previous, [])

    def test_authentication_is_text(self):
        for authentication, expected in {"PodIdentity": "true", "IRSA": "false"}.items():
            manifest = yaml.safe_load(Stack(Authentication=authentication).outputs["SecretProviderClass"]["Value"])
            self.assertEqual(manifest["spec"]["parameters"]["usePodIdentity"], expected)

    def test_name_and_namespace(self):
        for parameters, expected in [
            ({}, {"name": STACK, "namespace": "default"}),
            ({"ClassName": "123", "Namespace": "on"}, {"name": "123", "namespace": "on"}),
        ]:
            stack = Stack(**parameters)
            self.entries(stack)
            self.assertEqual(yaml.safe_load(stack.outputs["SecretProviderClass"]["Value"])["metadata"], expected)

    def test_kinds_are_those_of_the_code(self):
        names = {kind["name"] for kind in KINDS}
        self.assertEqual(set(TEMPLATE["Parameters"]["Kind"]["AllowedValues"]), names)
        self.assertEqual(TEMPLATE["Mappings"]["Files"].keys(), names)
        mapped = {name: entry["Actions"] for name, entry in TEMPLATE["Mappings"]["Permissions"].items()}
        self.assertEqual(mapped, {kind["name"]: kind["permissions"] or ["none:None"] for kind in KINDS})
        self.assertEqual(set(CHOICES["Kind"]), names, "CHOICES in this test lacks a kind, or has one too many")

    def test_files_are_the_fields_of_the_code(self):
        for kind in KINDS:
            with self.subTest(kind=kind["name"]):
                paths = self.paths(Stack(Kind=kind["name"], SecretArn=EXISTING))
                self.assertEqual(paths.keys(), {field["name"] for field in kind["fields"]})

    def test_every_field_is_mounted_as_text(self):
        for kind in KINDS:
            paths = self.paths(Stack(Kind=kind["name"], SecretArn=EXISTING))
            for field in kind["fields"]:
                name, example = field["name"], kind["example"]
                with self.subTest(kind=kind["name"], field=name):
                    read = jmespath.compile(paths[name]).search
                    self.assertEqual(read(example), str(example.get(name, field["default"])))
                    if field["type"] == "number":
                        self.assertEqual(read(example | {name: 6543}), "6543")
                        self.assertEqual(read(example | {name: "6543"}), "6543")
                    without = {key: value for key, value in example.items() if key != name}
                    if field["required"]:
                        self.assertIsNone(read(without), "the code requires this field; the template must not invent it")
                    else:
                        self.assertIsInstance(field["default"], str, "without a default the mount would fail")
                        self.assertEqual(read(without), field["default"])

    def test_token_field_may_have_any_name(self):
        for name in ("api-key", "n", "to_string"):
            with self.subTest(name=name):
                stack = Stack(TokenField=name)
                paths = self.paths(stack)
                self.assertEqual(paths.keys(), {name})
                generate = stack["RotatedSecret"]["GenerateSecretString"]
                secret = json.loads(generate["SecretStringTemplate"])
                self.assertEqual(secret["field"], name)
                secret[generate["GenerateStringKey"]] = "s3cr3t"
                self.assertEqual(jmespath.search(paths[name], secret), "s3cr3t")

    @for_every_stack
    def test_other_outputs_fit_the_manifest(self, stack):
        for name, output in stack.outputs.items():
            self.assertIsInstance(output["Value"], str, name)
            self.assertNotIn("${", output["Value"], name)
            self.assertNotIn("Export", output, name)
        arn = stack.parameters["SecretArn"] or SECRET
        self.assertEqual(stack.outputs["RotatedSecretArn"]["Value"], arn)
        self.assertEqual(stack.outputs["RotationFunctionArn"]["Value"], FUNCTION)
        self.assertIn("OutputKey=='SecretProviderClass'", stack.outputs["ApplyCommand"]["Value"])
        self.assertIn(f"--secret-id '{arn}'", stack.outputs["RotateCommand"]["Value"])
        read, *key = json.loads(stack.outputs["PodPolicy"]["Value"])["Statement"]
        self.assertEqual(read["Resource"], arn)
        self.assertEqual(set(read["Action"]), {"secretsmanager:DescribeSecret", "secretsmanager:GetSecretValue"})
        self.assertEqual([part["Resource"] for part in key], list(filter(None, [stack.parameters["KmsKeyArn"]])))


class Parameters(unittest.TestCase):
    BAD = {
        "Kind": ["", "oracle"],
        "SecretArn": ["prod/orders_db", EXISTING[:-7], EXISTING.replace("secretsmanager", "ssm")],
        "SecretName": ["two words", "a" * 513],
        "KmsKeyArn": ["alias/aws/secretsmanager", KEY.replace("key/", "alias/")],
        "AdminSecretArn": ["admin", ADMIN[:-7]],
        "ResourceArn": ["pipeline", USER.replace("user/", "role/"), USER + "*"],
        "ScheduleExpression": ["", "30 days", "rate(0 days)", "rate(3 hours)", "cron(15 3 * * ? *)", "cron(0 3 * * ? 2030)"],
        "ScheduleWindow": ["0h", "25h", "3"],
        "RotateImmediatelyOnUpdate": ["", "yes"],
        "PasswordLength": ["7", "4097", "long"],
        "ExcludeCharacters": ["a b", "é"],
        "ClassName": ["Upper", "-a", "a-", "a" * 64],
        "Namespace": ["", "Team"],
        "Authentication": ["", "irsa"],
        "MountFields": ["", "yes"],
        "TokenField": ["", "1st", "a b", 'a"', "kind", "field", "previous", "encoding", "length", "prefix", "secret.json"],
        "MountPrevious": ["", "yes"],
        "Architecture": ["", "arm"],
        "SubnetIds": ["vpc-0a1b2c3d", "subnet-0a1b2c3d, subnet-4e5f6a7b"],
        "SecurityGroupIds": ["default", "sg-0a1b2c3d,"],
        "LogRetentionDays": ["0", "31"],
        "AlarmTopicArn": ["oncall", TOPIC + ".fifo"],
    }
    GOOD = {
        "ScheduleExpression": ["rate(1 day)", "rate(4 hours)", "rate(999 days)", "cron(0 8 1 * ? *)", "cron(0 0/8 * * ? *)"],
        "ScheduleWindow": ["1h", "24h"],
        "PasswordLength": ["8", "4096"],
        "TokenField": ["kind_of_key", "encodings"],
        "KmsKeyArn": [KEY.replace("arn:aws:", "arn:aws-us-gov:")],
        "AlarmTopicArn": [TOPIC],
    }

    def test_bad_input_is_refused_by_the_parameter_itself(self):
        self.assertEqual(self.BAD.keys(), TEMPLATE["Parameters"].keys(), "every parameter needs an example of bad input")
        for name, values in self.BAD.items():
            for value in values:
                with self.subTest(name=name, value=value), self.assertRaisesRegex(Refused, f"^{name}$"):
                    Stack(**{name: value})

    def test_good_input_is_accepted(self):
        for name, values in self.GOOD.items():
            for value in values:
                with self.subTest(name=name, value=value):
                    Stack(**{name: value})

    def test_contradictions_are_refused_by_a_rule(self):
        for rule, parameters in [
            ("NewSecretIsRandom", {"Kind": "postgres"}),
            ("ExistingSecretHasItsName", {"SecretArn": EXISTING, "SecretName": "another"}),
            ("SubnetsAndSecurityGroups", {"SubnetIds": "subnet-0a1b2c3d"}),
            ("SubnetsAndSecurityGroups", {"SecurityGroupIds": "sg-0a1b2c3d"}),
        ]:
            with self.subTest(**parameters), self.assertRaisesRegex(Refused, f"^{rule}$"):
                Stack(**parameters)

    def test_every_parameter_is_explained_and_needs_no_answer(self):
        groups = TEMPLATE["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]
        grouped = [name for group in groups for name in group["Parameters"]]
        self.assertEqual(grouped, list(TEMPLATE["Parameters"]), "groups and parameters in one order")
        for name, spec in TEMPLATE["Parameters"].items():
            with self.subTest(name=name):
                self.assertLessEqual({"Default", "Description", "ConstraintDescription"}, spec.keys())
                self.assertTrue(spec.keys() & {"AllowedValues", "AllowedPattern"})


if __name__ == "__main__":
    unittest.main()
