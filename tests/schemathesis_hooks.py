"""What schemathesis does not know by itself: a stream of JSON lines is text."""

import schemathesis


@schemathesis.serializer("application/x-ndjson")
def ndjson_serializer(ctx, value):
    return str(value).encode()
