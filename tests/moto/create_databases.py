"""Makes databases in moto's RDS and prints two ARNs and the rest of the host names. Usage: create_databases.py ENDPOINT."""

import sys

import boto3

rds = boto3.client("rds", endpoint_url=sys.argv[1], region_name="us-east-1")
login = {"MasterUsername": "postgres", "MasterUserPassword": "a password"}
instance = rds.create_db_instance(
    DBInstanceIdentifier="one", DBInstanceClass="db.t4g.micro", Engine="postgres", AllocatedStorage=20, Port=5433, **login
)
cluster = rds.create_db_cluster(DBClusterIdentifier="many", Engine="aurora-postgresql", **login)
print(instance["DBInstance"]["DBInstanceArn"])
print(cluster["DBCluster"]["DBClusterArn"])

# An instance and its replica; a cluster and its members; and more than a page of others.
replica = rds.create_db_instance_read_replica(DBInstanceIdentifier="copy", SourceDBInstanceIdentifier="one")
members = [
    rds.create_db_instance(
        DBInstanceIdentifier=f"member-{number}",
        DBInstanceClass="db.t4g.medium",
        Engine="aurora-postgresql",
        DBClusterIdentifier="many",
    )
    for number in range(2)
]
for number in range(120):
    rds.create_db_instance(
        DBInstanceIdentifier=f"other-{number}", DBInstanceClass="db.t4g.micro", Engine="postgres", AllocatedStorage=20, **login
    )
for database in [instance, replica, *members]:
    print(rds.describe_db_instances(DBInstanceIdentifier=database["DBInstance"]["DBInstanceIdentifier"])["DBInstances"][0]["Endpoint"]["Address"])
print(cluster["DBCluster"]["ReaderEndpoint"])
