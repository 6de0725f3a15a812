"""Hooks for schemathesis: changes valid registrations as a schema cannot require (equal, strong passwords; a new username and e-mail)."""
import itertools

import schemathesis

numbers = itertools.count()


@schemathesis.hook
def before_call(context, case, kwargs):
    is_valid = case.meta is None or case.meta.generation.mode.is_positive
    if case.operation.label != "POST /api/v1/auth/register/" or not is_valid or not isinstance(case.body, dict):
        return
    number = next(numbers)
    email = f"{number}.{case.body['email']}"
    case.body = {
        **case.body,
        "username": f"{number}.{case.body['username']}"[:150],
        "password": f"{case.body['password']}-x{number}",
        "password2": f"{case.body['password']}-x{number}",
        "email": email if len(email) <= 254 else f"{number}@example.com",
    }
