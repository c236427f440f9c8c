"""AWS behind one port. boto3 is known here, and to the store of logs in CloudWatch; no database, no wire, no settings.

Read `port.py` first: it is all that the rest of the control plane sees. `ec2.EC2Cloud` is the implementation, put
together from `network`, `instances`, `volumes` and `deletion`; `calls` sends the requests, `listing` reads what is
there, `adoption` holds the rule that makes a create safe to repeat, `waiting` the rule for waits, and `errors` names
what AWS answers. The same code runs against AWS and against the EC2 sandbox: only AWS_ENDPOINT_URL differs.

Why two kinds of sending: botocore repeats a request whose reply was lost. For what EC2 keys by client token that is
safe; for CreateVpc and its like it makes a second one. So creates are sent once, and it is `adoption` that decides,
after looking at what is there, whether to send again.
"""
