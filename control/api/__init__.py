"""Operations of the control API: schemas, OpenAPI, admission, routes.

Imports `state` and `http`.
Never knows sockets, uvicorn, venues by name.
"""
