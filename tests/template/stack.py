"""A small CloudFormation: what template.yaml comes to for given parameters, without an AWS account.

As a program it prints one output: `stack.py OUTPUT [Parameter=value …]`.
"""

import pathlib
import re
import sys

import yaml


class Loader(yaml.SafeLoader):
    """YAML with CloudFormation's short forms: `!Ref x` is {"Ref": x}, `!Sub x` is {"Fn::Sub": x}."""


def short_form(loader, name, node):
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        value = loader.construct_mapping(node, deep=True)
    return {name if name in ("Ref", "Condition") else f"Fn::{name}": value}


Loader.add_multi_constructor("!", short_form)

TEMPLATE = yaml.load((pathlib.Path(__file__).parents[2] / "template.yaml").read_text(), Loader)

REGION, ACCOUNT, STACK = "eu-central-1", "111122223333", "keywheel"
SECRET = f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:RotatedSecret-1AB2-aB3dE6"
FUNCTION = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{STACK}-rotation"
LOGS = f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:/aws/lambda/{STACK}-rotation:*"


class Refused(Exception):
    """CloudFormation would not accept these parameters."""


NO_VALUE = object()


class Stack:
    """The template as CloudFormation would see it with these parameters, the others at their defaults."""

    PSEUDO = {
        "AWS::AccountId": ACCOUNT,
        "AWS::NoValue": NO_VALUE,
        "AWS::Partition": "aws",
        "AWS::Region": REGION,
        "AWS::StackName": STACK,
    }
    IDS = {"RotatedSecret": SECRET, "RotationFunction": f"{STACK}-rotation", "RotationLogGroup": "the-log-group"}
    ATTRIBUTES = {
        ("RotationFunction", "Arn"): FUNCTION,
        ("RotationLogGroup", "Arn"): LOGS,
        ("RotationRole", "Arn"): f"arn:aws:iam::{ACCOUNT}:role/the-role",
    }

    def __init__(self, **parameters):
        unknown = parameters.keys() - TEMPLATE["Parameters"].keys()
        assert not unknown, f"no such parameter: {unknown}"
        self.parameters = {name: str(spec["Default"]) for name, spec in TEMPLATE["Parameters"].items()} | parameters
        for name, value in self.parameters.items():
            spec = TEMPLATE["Parameters"][name]
            if "AllowedValues" in spec and value not in map(str, spec["AllowedValues"]):
                raise Refused(name)
            if "AllowedPattern" in spec and not re.fullmatch(spec["AllowedPattern"], value):
                raise Refused(name)
        for name, rule in TEMPLATE["Rules"].items():
            if self.resolve(rule.get("RuleCondition", True)):
                for assertion in rule["Assertions"]:
                    if not self.resolve(assertion["Assert"]):
                        raise Refused(name)
        self.resources = {
            name: self.resolve({key: value for key, value in resource.items() if key != "Condition"})
            for name, resource in TEMPLATE["Resources"].items()
            if self.condition(resource.get("Condition"))
        }
        self.outputs = {name: self.resolve(output) for name, output in TEMPLATE["Outputs"].items()}

    def __getitem__(self, resource):
        return self.resources[resource]["Properties"]

    def condition(self, name):
        return name is None or self.resolve(TEMPLATE["Conditions"][name])

    def resolve(self, value):
        if isinstance(value, list):
            return [item for item in map(self.resolve, value) if item is not NO_VALUE]
        if not isinstance(value, dict):
            return value
        if len(value) == 1:
            (key, argument), = value.items()
            if key == "Ref" or key.startswith("Fn::"):
                return getattr(self, key.replace("::", "_").lower())(argument)
        resolved = {key: self.resolve(item) for key, item in value.items()}
        return {key: item for key, item in resolved.items() if item is not NO_VALUE}

    def ref(self, name):
        if name in self.parameters:
            return self.parameters[name]
        if name in self.PSEUDO:
            return self.PSEUDO[name]
        assert self.condition(TEMPLATE["Resources"][name].get("Condition")), f"{name} does not exist in this stack"
        return self.IDS[name]

    def fn_sub(self, argument):
        text, values = (argument, {}) if isinstance(argument, str) else argument

        def value(match):
            name = match[1]
            return self.resolve(values[name]) if name in values else self.ref(name)

        return re.sub(r"\$\{([^!}][^}]*)\}", value, text).replace("${!", "${")

    def fn_getatt(self, argument):
        return self.ATTRIBUTES[tuple(argument.split(".") if isinstance(argument, str) else argument)]

    def fn_findinmap(self, argument):
        name, first, second = map(self.resolve, argument)
        return TEMPLATE["Mappings"][name][first][second]

    def fn_split(self, argument):
        return self.resolve(argument[1]).split(argument[0])

    def fn_equals(self, argument):
        left, right = map(self.resolve, argument)
        return left == right

    def fn_not(self, argument):
        return not self.resolve(argument[0])

    def fn_and(self, argument):
        return all(map(self.resolve, argument))

    def fn_or(self, argument):
        return any(map(self.resolve, argument))

    def fn_if(self, argument):
        name, yes, no = argument
        return self.resolve(yes if self.condition(name) else no)


if __name__ == "__main__":
    output, *pairs = sys.argv[1:]
    parameters = dict(pair.split("=", 1) for pair in pairs)
    if "SecretArn" in parameters:
        Stack.PSEUDO["AWS::Region"] = parameters["SecretArn"].split(":")[3]
    print(Stack(**parameters).outputs[output]["Value"], end="")
