"""Hooks for schemathesis: what a schema cannot say of a registration. Both passwords are equal and strong, name and e-mail new."""
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
