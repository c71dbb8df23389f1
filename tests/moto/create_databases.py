"""Makes an instance and a cluster in moto's RDS and prints their ARNs. Usage: create_databases.py ENDPOINT."""

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
