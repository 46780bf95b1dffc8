"""The instance metadata service of an EC2 instance (IMDSv2) with a role: imds.py PORT."""
import datetime
import http.server
import json
import sys

TOKEN = "a-session"
END = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=6)
ROLE = {
    "Code": "Success",
    "Type": "AWS-HMAC",
    "AccessKeyId": "ASIAINSTANCEROLE",
    "SecretAccessKey": "instance-role-hush",
    "Token": "instance-role-token",
    "Expiration": END.strftime("%Y-%m-%dT%H:%M:%SZ"),
    "LastUpdated": "2026-01-01T00:00:00Z",
}
ANSWERS = {
    "/latest/meta-data/iam/security-credentials/": "app-role",
    "/latest/meta-data/iam/security-credentials/app-role": json.dumps(ROLE),
    "/latest/meta-data/placement/region": "eu-west-1",
}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, text):
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("x-aws-ec2-metadata-token-ttl-seconds", "21600")
        self.end_headers()
        self.wfile.write(body)

    def do_PUT(self):
        fine = self.path == "/latest/api/token"
        self.answer(200 if fine else 404, TOKEN if fine else "")

    def do_GET(self):
        if self.headers.get("x-aws-ec2-metadata-token") != TOKEN:
            return self.answer(401, "")
        text = ANSWERS.get(self.path)
        self.answer(404 if text is None else 200, text or "")

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
print("ready", flush=True)
server.serve_forever()
