"""The reference service: the API with Django REST framework, SimpleJWT and django-filter on PostgreSQL.

Its responses are the contract. It is written as the tutorials of those packages show, and prints the port on which it listens.
"""
import json
import os
import sys

import django
from django.conf import settings

database = json.loads(os.environ["DATABASE"])
validators = ["UserAttributeSimilarity", "MinimumLength", "CommonPassword", "NumericPassword"]
settings.configure(
    SECRET_KEY=os.environ["SECRET_KEY"],
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF="__main__",
    USE_TZ=True,
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "rest_framework", "django_filters"],
    MIDDLEWARE=["django.middleware.security.SecurityMiddleware", "django.middleware.common.CommonMiddleware"],
    DATABASES={"default": {"ENGINE": "django.db.backends.postgresql", "NAME": database["dbname"], "USER": database.get("user", ""),
                           "PASSWORD": database.get("password", ""), "HOST": database.get("host", ""), "PORT": database.get("port", ""),
                           "CONN_MAX_AGE": None}},
    PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
    AUTH_PASSWORD_VALIDATORS=[{"NAME": f"django.contrib.auth.password_validation.{name}Validator"} for name in validators],
    REST_FRAMEWORK={
        "DEFAULT_AUTHENTICATION_CLASSES": ["rest_framework_simplejwt.authentication.JWTAuthentication"],
        "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
        "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser", "rest_framework.parsers.FormParser"],
        "DEFAULT_FILTER_BACKENDS": ["django_filters.rest_framework.DjangoFilterBackend"],
    },
)
django.setup()

# These modules read the settings when they are imported.
import django_filters
from django.contrib.auth.models import User
from django.contrib.auth.password_validation import validate_password
from django.core.handlers.wsgi import WSGIHandler
from django.core.management import call_command
from django.core.servers.basehttp import ThreadedWSGIServer, WSGIRequestHandler
from django.db import connection, models
from django.urls import path
from rest_framework import generics, pagination, permissions, serializers
from rest_framework.validators import UniqueValidator
from rest_framework_simplejwt.views import TokenObtainPairView, TokenRefreshView

IS_SHARED = os.environ["MOVIES_VISIBILITY"] == "shared"


class Movie(models.Model):
    title = models.CharField(max_length=100)
    genre = models.CharField(max_length=100)
    year = models.IntegerField()
    creator = models.ForeignKey(User, on_delete=models.CASCADE)

    class Meta:
        app_label = "movies"


class RegisterSerializer(serializers.ModelSerializer):
    email = serializers.EmailField(max_length=254, validators=[UniqueValidator(queryset=User.objects.all())])
    password = serializers.CharField(write_only=True, validators=[validate_password])
    password2 = serializers.CharField(write_only=True)

    class Meta:
        model = User
        fields = ("id", "username", "password", "password2", "email", "first_name", "last_name")

    def validate(self, fields):
        if fields["password"] != fields["password2"]:
            raise serializers.ValidationError({"password": "Password fields didn't match."})
        return fields

    def create(self, fields):
        del fields["password2"]
        user = User(**fields)
        user.set_password(fields["password"])
        user.save()
        return user


class MovieSerializer(serializers.ModelSerializer):
    creator = serializers.ReadOnlyField(source="creator.username")

    class Meta:
        model = Movie
        fields = ("id", "title", "genre", "year", "creator")


class MovieFilter(django_filters.FilterSet):
    title = django_filters.CharFilter(lookup_expr="icontains")
    genre = django_filters.CharFilter(lookup_expr="icontains")
    creator__username = django_filters.CharFilter(lookup_expr="icontains")
    year = django_filters.NumberFilter()
    year__gt = django_filters.NumberFilter(field_name="year", lookup_expr="gt")
    year__lt = django_filters.NumberFilter(field_name="year", lookup_expr="lt")


class Pages(pagination.PageNumberPagination):
    page_size = 10
    page_size_query_param = "page_size"
    max_page_size = 100


class IsCreator(permissions.BasePermission):
    def has_object_permission(self, request, view, movie):
        return movie.creator == request.user or (IS_SHARED and request.method in permissions.SAFE_METHODS)


class Register(generics.CreateAPIView):
    permission_classes = [permissions.AllowAny]
    serializer_class = RegisterSerializer


class Movies(generics.ListCreateAPIView):
    permission_classes = [permissions.IsAuthenticated]
    serializer_class = MovieSerializer
    pagination_class = Pages
    filterset_class = MovieFilter

    def get_queryset(self):
        movies = Movie.objects.select_related("creator").order_by("-id")
        return movies if IS_SHARED else movies.filter(creator=self.request.user)

    def perform_create(self, serializer):
        serializer.save(creator=self.request.user)


class OneMovie(generics.RetrieveUpdateDestroyAPIView):
    permission_classes = [permissions.IsAuthenticated, IsCreator]
    serializer_class = MovieSerializer
    queryset = Movie.objects.select_related("creator")


urlpatterns = [
    path("api/v1/auth/register/", Register.as_view()),
    path("api/v1/auth/token/", TokenObtainPairView.as_view()),
    path("api/v1/auth/refresh/", TokenRefreshView.as_view()),
    path("api/v1/movies/", Movies.as_view()),
    path("api/v1/movies/<int:pk>/", OneMovie.as_view()),
]


class QuietHandler(WSGIRequestHandler):
    # Headers and body are two writes: with Nagle's algorithm the second would wait for the client's acknowledgement.
    disable_nagle_algorithm = True

    def get_environ(self):
        # Without a Content-Type header this server would pass text/plain on; servers used in production pass nothing.
        return {**super().get_environ(), "CONTENT_TYPE": self.headers.get("Content-Type", "")}

    def log_message(self, *arguments):
        pass


if __name__ == "__main__":
    call_command("migrate", verbosity=0)
    with connection.schema_editor() as editor:
        editor.create_model(Movie)
    server = ThreadedWSGIServer(("127.0.0.1", 0), QuietHandler)
    server.set_app(WSGIHandler())
    print(server.server_port, flush=True)
    sys.exit(server.serve_forever())
