"""Makes a cluster in moto's Redshift and prints its name. Usage: create_cluster.py ENDPOINT."""

import sys

import boto3

redshift = boto3.client("redshift", endpoint_url=sys.argv[1], region_name="us-east-1")
cluster = redshift.create_cluster(
    ClusterIdentifier="warehouse",
    NodeType="ra3.xlplus",
    MasterUsername="admin",
    MasterUserPassword="A password 1",
    Port=5440,
)
print(cluster["Cluster"]["ClusterIdentifier"])
