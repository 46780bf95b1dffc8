"""https_requests.py URL: python3-requests, a session with two requests."""
import sys

import requests

with requests.Session() as session:
    for _ in range(2):
        answer = session.get(sys.argv[1], timeout=20)
        answer.raise_for_status()
        print(answer.text, end="")
