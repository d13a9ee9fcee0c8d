"""Tables the generated numbers are drawn from: real Russian area and mobile codes by region, and words for comments."""

from collections.abc import Mapping
from typing import NamedTuple


class Region(NamedTuple):
    """A region as `region_name` spells it, with the three-digit codes of its numbers."""

    name: str
    city_codes: tuple[str, ...]
    mobile_codes: tuple[str, ...]


# Each of the vendor's mobile codes serves one part of the country.
_MOSCOW = ("925", "926", "929", "999")
_CENTRE = ("920", "930")
_NORTH_WEST = ("921", "931")
_URAL = ("922", "932")
_SIBERIA = ("923", "933")
_FAR_EAST = ("924", "934")
_VOLGA = ("927", "937")
_SOUTH = ("928", "938")

REGIONS: tuple[Region, ...] = (
    Region("регион Москва", ("495", "499"), _MOSCOW),
    Region("Московская область", ("496", "498"), _MOSCOW),
    Region("Белгородская область", ("472",), _CENTRE),
    Region("Брянская область", ("483",), _CENTRE),
    Region("Владимирская область", ("492",), _CENTRE),
    Region("Воронежская область", ("473",), _CENTRE),
    Region("Ивановская область", ("493",), _CENTRE),
    Region("Калужская область", ("484",), _CENTRE),
    Region("Костромская область", ("494",), _CENTRE),
    Region("Курская область", ("471",), _CENTRE),
    Region("Липецкая область", ("474",), _CENTRE),
    Region("Нижегородская область", ("831",), _CENTRE),
    Region("Орловская область", ("486",), _CENTRE),
    Region("Рязанская область", ("491",), _CENTRE),
    Region("Смоленская область", ("481",), _CENTRE),
    Region("Тамбовская область", ("475",), _CENTRE),
    Region("Тверская область", ("482",), _CENTRE),
    Region("Тульская область", ("487",), _CENTRE),
    Region("Ярославская область", ("485",), _CENTRE),
    Region("регион Санкт-Петербург", ("812",), _NORTH_WEST),
    Region("Ленинградская область", ("813",), _NORTH_WEST),
    Region("Архангельская область", ("818",), _NORTH_WEST),
    Region("Вологодская область", ("817", "820"), _NORTH_WEST),
    Region("Калининградская область", ("401",), _NORTH_WEST),
    Region("Мурманская область", ("815",), _NORTH_WEST),
    Region("Новгородская область", ("816",), _NORTH_WEST),
    Region("Псковская область", ("811",), _NORTH_WEST),
    Region("Республика Карелия", ("814",), _NORTH_WEST),
    Region("Республика Коми", ("821",), _NORTH_WEST),
    Region("Кировская область", ("833",), _URAL),
    Region("Курганская область", ("352",), _URAL),
    Region("Оренбургская область", ("353",), _URAL),
    Region("Пермский край", ("342",), _URAL),
    Region("Свердловская область", ("343",), _URAL),
    Region("Тюменская область", ("345",), _URAL),
    Region("Удмуртская Республика", ("341",), _URAL),
    Region("Челябинская область", ("351",), _URAL),
    Region("Алтайский край", ("385",), _SIBERIA),
    Region("Кемеровская область", ("384",), _SIBERIA),
    Region("Красноярский край", ("391",), _SIBERIA),
    Region("Новосибирская область", ("383",), _SIBERIA),
    Region("Омская область", ("381",), _SIBERIA),
    Region("Томская область", ("382",), _SIBERIA),
    Region("Амурская область", ("416",), _FAR_EAST),
    Region("Иркутская область", ("395",), _FAR_EAST),
    Region("Приморский край", ("423",), _FAR_EAST),
    Region("Хабаровский край", ("421",), _FAR_EAST),
    Region("Пензенская область", ("841",), _VOLGA),
    Region("Республика Башкортостан", ("347",), _VOLGA),
    Region("Республика Татарстан", ("843", "855"), _VOLGA),
    Region("Самарская область", ("846", "848"), _VOLGA),
    Region("Саратовская область", ("845",), _VOLGA),
    Region("Ульяновская область", ("842",), _VOLGA),
    Region("Краснодарский край", ("861",), _SOUTH),
    Region("Ростовская область", ("863",), _SOUTH),
    Region("Ставропольский край", ("865",), _SOUTH),
)

TOLL_FREE_CODE = "800"

SURNAMES: tuple[str, ...] = (
    "Алексеева", "Васильев", "Воробьёва", "Громов", "Егорова", "Зайцев", "Иванов", "Ковалёва", "Кузнецов", "Лебедева",
    "Морозов", "Новикова", "Орлов", "Павлова", "Петров", "Семёнова", "Соколов", "Фёдорова", "Шевцов", "Щербакова",
)  # fmt: skip
INITIALS = "АВГДЕИКЛМНОПРСТЮ"
POSITIONS: tuple[str, ...] = (
    "менеджер", "бухгалтер", "логист", "юрист", "водитель", "кладовщик", "директор", "секретарь", "инженер", "оператор",
)  # fmt: skip
DEPARTMENTS: tuple[str, ...] = (
    "Отдел продаж", "Бухгалтерия", "Горячая линия", "Ресепшн", "Служба доставки", "Отдел кадров", "Техподдержка",
    "Склад", "Сервисный центр", "Приёмная", "Офис «Центр»", "Реклама: карты", "Реклама: сайт", "Реклама: листовки",
)  # fmt: skip
REASONS: Mapping[str, str | None] = {
    "freeze": "Заявление клиента",
    "debt_lock": "Задолженность по договору",
    "unconfirmed": "Не подтверждены документы",
    "activation": None,
}
"""`reason` of a number, by its `state`."""
