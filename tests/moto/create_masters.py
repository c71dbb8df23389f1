"""Makes databases with administrators in moto. Usage: create_masters.py ENDPOINT."""

import sys

import boto3

rds, redshift = (boto3.client(name, endpoint_url=sys.argv[1], region_name="us-east-1") for name in ["rds", "redshift"])
login = {"MasterUsername": "chief", "MasterUserPassword": "A password 1"}
small = {"DBInstanceClass": "db.t4g.micro", "AllocatedStorage": 20}
rds.create_db_instance(DBInstanceIdentifier="one", Engine="postgres", Port=5433, **small, **login)
rds.create_db_instance(DBInstanceIdentifier="oracle", Engine="oracle-se2", **small, **login)
rds.create_db_instance(DBInstanceIdentifier="managed", Engine="mysql", MasterUsername="chief", ManageMasterUserPassword=True, **small)
rds.create_db_instance_read_replica(DBInstanceIdentifier="copy", SourceDBInstanceIdentifier="one")
rds.create_db_cluster(DBClusterIdentifier="many", Engine="aurora-mysql", **login)
rds.create_db_instance(
    DBInstanceIdentifier="member", DBInstanceClass="db.t4g.medium", Engine="aurora-mysql", DBClusterIdentifier="many"
)
rds.create_db_cluster(DBClusterIdentifier="graph", Engine="neptune", **login)
redshift.create_cluster(ClusterIdentifier="warehouse", NodeType="ra3.xlplus", Port=5440, **login)
for instance in rds.describe_db_instances()["DBInstances"]:
    print(instance["DBInstanceIdentifier"], instance["Endpoint"]["Address"])
for cluster in rds.describe_db_clusters()["DBClusters"]:
    print(cluster["DBClusterIdentifier"], cluster["Endpoint"])
